"""Draws sizes.svg: exact match on MASSIVE en-US against parameters; weebill's models are those of numbers.toml."""

import tomllib
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt

HERE = Path(__file__).parent
PUBLISHED = {  # on test: parameters in millions, exact match; MASSIVE's paper and GradCodeS-LoRA
    "XLM-R base": (270, 69.7),
    "mT5 base, encoder": (258, 72.0),
    "mT5 base, text to text": (580, 72.5),
    "Llama 3.2 3B": (3000, 70.48),
}
OURS = {"tiny": "tiny, in the package", "massive": "finetune massive", "born-again": "distill massive-minilm"}


def main() -> None:
    """Read, draw, write."""
    numbers = tomllib.loads((HERE.parent / "numbers.toml").read_text(encoding="utf-8"))
    mpl.rcParams |= {"svg.hashsalt": "weebill", "font.size": 10, "svg.fonttype": "path"}
    figure, axes = plt.subplots(figsize=(7.2, 3.9), layout="constrained")
    for name, (parameters, exact) in PUBLISHED.items():
        axes.scatter(parameters, exact, s=42, facecolors="none", edgecolors="#6b7280", linewidths=1.5)
        above = 8 if parameters > 270 else -16
        axes.annotate(name, (parameters, exact), (0, above), textcoords="offset points", ha="center", color="#4b5563")
    for key, name in OURS.items():
        parameters, exact = float(numbers[key]["parameters_m"]), float(numbers[key]["exact"])
        axes.scatter(parameters, exact, s=60, color="#c2410c", zorder=3)
        place = (0, 10) if parameters > 10 else (9, -3)
        axes.annotate(name, (parameters, exact), place, textcoords="offset points", color="#9a3412",
                      ha="center" if parameters > 10 else "left")  # fmt: skip
    axes.scatter([], [], s=60, color="#c2410c", label="weebill, dev")
    axes.scatter([], [], s=42, facecolors="none", edgecolors="#6b7280", linewidths=1.5, label="published, test")
    axes.legend(loc="lower right", frameon=False)
    axes.set(xscale="log", xlim=(0.5, 6000), ylim=(62, 75.5), xlabel="parameters, millions", ylabel="exact match, %")
    axes.set_xticks([1, 10, 100, 1000], ["1", "10", "100", "1,000"])
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(HERE / "sizes.svg", metadata={"Date": None})


if __name__ == "__main__":
    main()
