"""Matplotlib's SVG, made fit for a strict page: no style attributes, no ids that another plot has, a title and a text.

Colours become presentation attributes, which a style sheet may change: that is how a plot follows the page into the dark.
"""

import re
from xml.etree import ElementTree

from app.reports.palette import dark_rules
from app.reports.plot import Plot

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
ElementTree.register_namespace("", _SVG)
ElementTree.register_namespace("xlink", _XLINK)

_FONTS = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', 'DejaVu Sans', sans-serif"
# What a style may say that is also an attribute of SVG 1.1.
_ATTRIBUTES = frozenset(
    (
        *(
            "clip-path",
            "fill",
            "fill-opacity",
            "fill-rule",
            "font-size",
            "font-style",
            "font-weight",
            "opacity",
        ),
        *("stroke", "stroke-dasharray", "stroke-dashoffset", "stroke-linecap", "stroke-linejoin"),
        *("stroke-miterlimit", "stroke-opacity", "stroke-width", "text-anchor"),
    )
)
_FONT = re.compile(
    r"(?P<style>italic|oblique)?\s*(?P<weight>bold|[1-9]00)?\s*(?P<size>[\d.]+)px\b.*", re.DOTALL
)
_LONG_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([^)\s]+)")


def inline(drawn: bytes, plot: Plot) -> str:
    """The element for a page, whose style sheet has `dark_rules()`."""
    return ElementTree.tostring(_cleaned(drawn, plot), encoding="unicode")


def standalone(drawn: bytes, plot: Plot) -> bytes:
    """A file of its own, light or dark as its reader's screen is."""
    root = _cleaned(drawn, plot)
    style = ElementTree.Element(f"{{{_SVG}}}style")
    style.text = dark_rules()
    root.insert(2, style)
    return ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)


def _cleaned(drawn: bytes, plot: Plot) -> ElementTree.Element:
    root = ElementTree.fromstring(drawn)
    for element in list(root):
        if element.tag == f"{{{_SVG}}}metadata":
            root.remove(element)
    _drop_style_elements(root)
    for element in root.iter():
        _move_style(element)
        _shorten(element)
    _own_ids(root, plot.name)
    _describe(root, plot)
    return root


def _drop_style_elements(root: ElementTree.Element) -> None:
    """The one there is says what the root says below."""
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag == f"{{{_SVG}}}style":
                parent.remove(child)
    root.set("stroke-linejoin", "round")
    root.set("font-family", _FONTS)


def _move_style(element: ElementTree.Element) -> None:
    for declaration in element.attrib.pop("style", "").split(";"):
        name, _, value = declaration.partition(":")
        name, value = name.strip(), value.strip()
        if name == "font" and (font := _FONT.fullmatch(value)):
            for part in ("style", "weight", "size"):
                if font[part]:
                    element.set(f"font-{part}", font[part])
        elif name in _ATTRIBUTES:
            element.set(name, value.removesuffix("px") if name == "font-size" else value)


def _shorten(element: ElementTree.Element) -> None:
    """A hundredth of a pixel is enough for everybody, and half the bytes."""
    if element.tag == f"{{{_SVG}}}image":
        return
    for name in ("d", "x", "y"):
        if name in element.attrib:
            element.set(name, _LONG_NUMBER.sub(lambda found: f"{float(found[0]):.2f}", element.attrib[name]))
    if "d" in element.attrib:
        element.set("d", " ".join(element.attrib["d"].split()))


def _own_ids(root: ElementTree.Element, prefix: str) -> None:
    """Several plots share a page: each id that is referred to gets the plot's name, the others go."""
    references = [
        (element, name)
        for element in root.iter()
        for name in (f"{{{_XLINK}}}href", "clip-path")
        if "#" in element.attrib.get(name, "") and not element.attrib[name].startswith("data:")
    ]
    used = {match[1] for element, name in references if (match := _REFERENCE.search(element.attrib[name]))}
    for element in root.iter():
        ident = element.attrib.pop("id", None)
        if ident in used:
            element.set("id", f"{prefix}-{ident}")
    for element, name in references:
        element.set(name, _REFERENCE.sub(rf"#{prefix}-\1", element.attrib[name]))


def _describe(root: ElementTree.Element, plot: Plot) -> None:
    """Read out in place of the picture."""
    for position, (tag, text) in enumerate((("title", plot.title), ("desc", plot.alt))):
        element = ElementTree.Element(f"{{{_SVG}}}{tag}", {"id": f"{plot.name}-{tag}"})
        element.text = text
        root.insert(position, element)
    root.set("role", "img")
    root.set("aria-labelledby", f"{plot.name}-title {plot.name}-desc")
    root.set("width", str(plot.width))
    root.set("height", str(plot.height))
