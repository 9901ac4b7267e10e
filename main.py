"""The reference job: CIFAR-100 with MobileNetV2, a head on the frozen network, then fine-tuning.

    pip install -r requirements.txt
    python main.py

Writes a run folder under runs/ and advanced_training_history.png here, and prints the final test
accuracy. All flags of `thawnet train` work here too: with files of your own, python main.py
--data-dir FOLDER --weights FILE; after an interruption, python main.py --resume.
"""

import shutil
import sys

from thawnet import cli
from thawnet.commands.train import train
from thawnet.core.flags import parse
from thawnet.recipe import TrainOptions

PLOT = "advanced_training_history.png"


def job() -> None:
    """Parse the flags, train, and put the plot where the reference puts it."""
    options = parse(
        TrainOptions,
        cli.fill_resume(sys.argv[1:]),
        default=TrainOptions(recipe="seed"),
        description=__doc__,
    )
    outcome = train(options)
    shutil.copyfile(outcome.folder / "history.png", PLOT)
    print(f"plot: {PLOT}")


if __name__ == "__main__":
    sys.exit(cli.guarded(job))
