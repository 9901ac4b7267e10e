"""The network: built through timm, filled with weights, frozen and split."""
