"""What do all charts look like? Their colours, a figure without pyplot's global state, and a PNG of it."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, PALE_INK, RULE = "#1c2530", "#66717f", "#c9d1dc"
BLUE, ORANGE, GREEN, PURPLE = "#3b6ea8", "#c8772a", "#2c8a57", "#8a63b0"
DPI = 144


def new_figure(size_inches: tuple[float, float]) -> "Figure":
    """An empty figure on white."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(axes: "Axes") -> None:
    """Leave out what says nothing, and let the numbers stand back."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color(RULE)
    axes.tick_params(colors=PALE_INK, labelsize=9)


def png_of(figure: "Figure") -> bytes:
    """The figure as a PNG, for a page that holds its own pictures."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return buffer.getvalue()
