"""Any timm model as a chain of stages, cut where a single tensor is all that is passed on.

The model is traced once with torch.fx. A cut between two steps is possible where later steps use
only the result of the earlier one. Cuts are made at block boundaries, directly inside the network
or inside one of its nn.Sequential modules, and before the classifier.
"""

from __future__ import annotations

import inspect
import itertools
import threading
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn

HEAD = "head"
CONSTANT = "constant_"  # prefix of the buffers that tracing adds to a network


@dataclass(frozen=True)
class Stage:
    """The steps of the trace between two cuts.

    name: timm's name of the block, made unique; 'head' for the last stage. layers: its modules that
    hold weights, in order of execution. start, stop: the range of its steps, stop excluded.
    """

    name: str
    layers: tuple[str, ...]
    start: int
    stop: int


@dataclass(frozen=True)
class Chain:
    """The trace of a network; it holds names, not modules, so that copies can share it."""

    steps: tuple[fx.Node, ...]
    stages: tuple[Stage, ...]

    def part(
        self, net: nn.Module, first: int, last: int | None, every: bool = False
    ) -> fx.GraphModule:
        """Return stages first..last (exclusive) as a module that shares the weights of `net`.

        every: the module returns the results of all its stages, a tuple, not only the last one's.
        """
        stages = self.stages[first:last]
        graph = fx.Graph()
        entry = graph.placeholder("x")
        done: dict[fx.Node, fx.Node] = {}

        def copied(node: fx.Node) -> fx.Node:
            if node not in done and node.op == "get_attr":
                done[node] = graph.node_copy(node)  # a weight, fetched anywhere in the trace
            return done[node]

        before = self.steps[stages[0].start - 1]
        done[before] = entry
        for node in self.steps[stages[0].start : stages[-1].stop]:
            done[node] = graph.node_copy(node, copied)
        results = [done[self.steps[stage.stop - 1]] for stage in stages]
        graph.output(tuple(results) if every else results[-1])
        return fx.GraphModule(net, graph)

    def __deepcopy__(self, memo: dict[int, Any]) -> Chain:
        """Return the same trace: it holds names, no weights."""
        return self


class _Tracer(fx.Tracer):
    def __init__(self) -> None:
        from timm.models import get_notrace_functions, get_notrace_modules

        functions: list[Any] = get_notrace_functions()
        modules: list[type] = get_notrace_modules()
        super().__init__(autowrap_functions=tuple(functions))
        self._thread = threading.get_ident()
        # Includes timm's subclasses of these, which torch.fx would trace into by default.
        self.whole = (*modules, nn.Linear, nn.Conv2d, nn.LayerNorm)

    def call_module(self, m: nn.Module, forward: Any, args: Any, kwargs: Any) -> Any:
        """Trace a module call; in other threads, which torch.fx patches too, just run it."""
        if threading.get_ident() != self._thread:
            return forward(*args, **kwargs)
        return super().call_module(m, forward, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return super().is_leaf_module(m, module_qualified_name) or isinstance(m, self.whole)


def trace(net: nn.Module, head: str, size: int) -> Chain:
    """Trace a network in evaluation mode and cut it into stages; `head` names its classifier.

    size: side of its input, in pixels.
    Raises ValueError when the classifier cannot be cut off, and whatever torch.fx raises for a
    network whose control flow depends on its input's values.
    """
    parameters = list(inspect.signature(net.forward).parameters.values())
    fixed = {
        parameter.name: parameter.default
        for parameter in parameters[1:]
        if parameter.kind is not parameter.VAR_KEYWORD
    }
    graph = _Tracer().trace(net.eval(), concrete_args=fixed)
    _hold_constants(net, graph, (3, size, size), list(fixed.values()))
    nodes = list(graph.nodes)
    image, (result,) = nodes[0], nodes[-1].all_input_nodes
    needed, open_nodes = {image, result}, [result]
    while open_nodes:  # drops assertions and fixed arguments, which lead nowhere
        new = set(open_nodes.pop().all_input_nodes) - needed
        needed |= new
        open_nodes += new
    steps = [node for node in nodes if node in needed]
    cuts = _cuts(net, steps, head)
    ends = [position for position, (start, _) in enumerate(cuts) if steps[start].target == head]
    if not ends:
        raise ValueError(f"more than one tensor leads to its classifier '{head}'")
    starts = cuts[: ends[0] + 1]
    names: list[str] = []
    for start, depth in starts[:-1]:
        name = _name(net, steps[start], depth)
        again = names.count(name) or name == HEAD
        names.append(f"{name}@{start}" if again else name)
    stages = [
        Stage(
            name=name,
            layers=_layers(net, steps[start:stop]),
            start=start,
            stop=stop,
        )
        for name, (start, _), (stop, _) in zip(
            [*names, HEAD], starts, [*starts[1:], (len(steps), 0)], strict=True
        )
    ]
    return Chain(tuple(steps), tuple(stages))


class _Observer(fx.Interpreter):
    """An interpreter of a trace that records the values of some steps, by name."""

    def __init__(self, net: nn.Module, graph: fx.Graph, names: Collection[str]) -> None:
        super().__init__(fx.GraphModule(net, graph))
        self.names = names
        self.values: dict[str, Any] = {}

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n.name in self.names:
            self.values[n.name] = value
        return value


def _hold_constants(
    net: nn.Module, graph: fx.Graph, shape: tuple[int, ...], others: Sequence[Any]
) -> None:
    """Turn tensors that depend on neither pixels nor weights into buffers of the network.

    Rotary position embeddings are an example. Computed from the image's shape, they would bypass
    every block as a second tensor, and no cut between blocks would be possible.
    shape: of an image. others: the network's other arguments, which are fixed.
    """
    steps = {node.name: node for node in _constant_steps(net, graph)}
    if not steps:
        return
    observers = [_Observer(net, graph, steps) for _ in range(2)]
    with torch.no_grad():
        for count, observer in enumerate(observers, start=1):
            observer.run(torch.zeros(count, *shape), *others)
    one, two = (observer.values for observer in observers)
    for name, node in steps.items():
        value = one[name]
        if isinstance(value, torch.Tensor) and torch.equal(value, two[name]):
            net.register_buffer(f"{CONSTANT}{name}", value.clone(), persistent=False)
            with graph.inserting_before(node):
                node.replace_all_uses_with(graph.create_node("get_attr", f"{CONSTANT}{name}"))


def _constant_steps(net: nn.Module, graph: fx.Graph) -> Iterator[fx.Node]:
    """Yield steps that compute tensors from shapes and buffers alone and feed steps that do not."""
    parameters = {name for name, _ in net.named_parameters()}
    decided: set[fx.Node] = set()  # nodes that depend on pixels or weights
    tensors: set[fx.Node] = set()
    for node in graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "call_module":
            weights = next(net.get_submodule(str(node.target)).parameters(), None) is not None
        else:
            weights = node.op == "get_attr" and str(node.target) in parameters
        shape = node.target in ("size", "dim") or (
            node.target is getattr and node.args[1] == "shape"
        )
        if node.op == "placeholder" or weights or (not shape and not decided.isdisjoint(inputs)):
            decided.add(node)
        elif not shape and (
            node.op in ("get_attr", "call_module")
            or str(getattr(node.target, "__module__", "")).startswith("torch")
            or not tensors.isdisjoint(inputs)
        ):
            tensors.add(node)
    for node in tensors:
        if node.op != "get_attr" and not decided.isdisjoint(node.users):
            yield node


def _cuts(net: nn.Module, steps: list[fx.Node], head: str) -> list[tuple[int, int]]:
    """Return the position of each stage's first step and the nesting depth that it starts at."""
    computed = [position for position, node in enumerate(steps) if node.op != "get_attr"]
    where = {node: position for position, node in enumerate(steps)}
    last_use = [
        max((where[user] for user in node.users if user in where), default=0) for node in steps
    ]
    cuts: list[tuple[int, int]] = []
    needed = 0  # position of the last step that uses a result from before the current one
    for earlier, position in itertools.pairwise(computed):
        if needed <= earlier:
            outside = _modules(steps[earlier]), _modules(steps[position])
            depth = next(
                (
                    depth
                    for depth, pair in enumerate(zip(*outside, strict=False))
                    if pair[0] != pair[1]
                ),
                min(map(len, outside)),
            )
            around = net.get_submodule(outside[1][depth - 1]) if depth else net
            if around is net or isinstance(around, nn.Sequential) or steps[position].target == head:
                cuts.append((earlier + 1, depth))
        needed = max(needed, last_use[earlier])
    return cuts


def _modules(node: fx.Node) -> list[str]:
    """Return the names of the modules around a step, from the outermost to its own."""
    return [str(name) for name, _ in (node.meta.get("nn_module_stack") or {}).values()]


def _name(net: nn.Module, node: fx.Node, depth: int) -> str:
    inner = _modules(node)[depth:]
    for name in inner:
        if not isinstance(net.get_submodule(name), nn.Sequential):
            return name
    return inner[-1] if inner else node.name


def _layers(net: nn.Module, steps: list[fx.Node]) -> tuple[str, ...]:
    layers: dict[str, None] = {}
    for node in steps:
        if node.op == "call_module":
            name = str(node.target)
            for inner, module in net.get_submodule(name).named_modules(prefix=name):
                if next(module.parameters(recurse=False), None) is not None:
                    layers[inner] = None
        elif node.op == "get_attr" and not str(node.target).startswith(CONSTANT):
            layers[str(node.target).rpartition(".")[0]] = None
    return tuple(layers)
