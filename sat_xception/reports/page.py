"""Self-contained HTML pages: one file, no network, no script, all values escaped.

The Kubeflow UI shows them in a sandboxed frame, and they can be sent by mail.
"""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from sat_xception.errors import DataError

__all__ = ["render_page", "thumbnail"]

_TEMPLATES = jinja2.Environment(
    loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=jinja2.StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
_THUMBNAIL_PX = 128


def render_page(template: str, **values: Any) -> str:  # noqa: ANN401 - whatever the template names
    """Render `sat_xception/reports/templates/<template>.html` with the values.

    SVG drawings are passed as `markupsafe.Markup`; every other text is escaped.
    """
    return _TEMPLATES.get_template(f"{template}.html").render(**values)


def thumbnail(data: bytes) -> str:
    """Return a small JPEG of an encoded image as a `data:` address.

    Raises:
        DataError: The image can't be decoded.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            # Pillow converts 16 bits to 8 by clipping: everything above 255 becomes white.
            wide = image.mode.startswith("I")
            small = (image.point(lambda value: value / 257) if wide else image).convert("L" if wide else "RGB")
    except OSError as error:
        raise DataError(f"can't draw a thumbnail: {error}") from None
    small.thumbnail((_THUMBNAIL_PX, _THUMBNAIL_PX))
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=75)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
