"""Rewrite the SVG of matplotlib for a page with a strict content security policy.

Browsers ignore `style` attributes and `<style>` elements under `style-src` without `unsafe-inline`, and draw black
shapes. Presentation attributes such as `fill` are not subject to the policy.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from llm_energy_measure.reports.style import INK

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_URL = re.compile(r"url\(#([^)]+)\)")
_USED = re.compile(r"(?:url\(|^)#([^)]+)")
_NUMBER = re.compile(r"-?[0-9]+\.[0-9]{3,}")
_FONT = re.compile(r"(?:(?P<style>italic|oblique) )?(?:(?P<weight>bold|[1-9]00) )?(?P<size>[0-9.]+)px .*")
_WITHOUT_VALUE = {"font-family", "font-variant", "font-stretch"}


def for_page(svg: str, name: str, title: str, description: str, *, tooltips: dict[str, str] | None = None) -> str:
    """Return an SVG element for a page: no style, unique ids, a title and a description, and the colour of the text.

    Args:
        svg: A document that matplotlib wrote.
        name: Prefix of all ids, unique in the page.
        title: Title of the figure.
        description: What the figure shows.
        tooltips: Text of each link by its target.
    """
    from xml.etree import ElementTree as ET

    root = ET.fromstring(svg[svg.index("<svg") :])  # noqa: S314 - matplotlib wrote it, and escaped all names
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{{{_SVG}}}metadata", f"{{{_SVG}}}style") or _is_empty_style(child):
                parent.remove(child)
    used = {found for element in root.iter() for value in element.attrib.values() for found in _USED.findall(value)}
    for element in root.iter():
        if element.get("id") not in used:  # matplotlib gives an id to every group
            element.attrib.pop("id", None)
        _set_presentation(element.attrib)
        _prefix_ids(element.attrib, name)
        if element.tag == f"{{{_SVG}}}a":
            _describe_link(element, tooltips or {}, ET.SubElement)
    for word, value in (("stroke-linejoin", "round"), ("stroke-linecap", "butt"), ("font-family", "sans-serif")):
        root.set(word, value)
    root.set("role", "group")
    root.set("aria-labelledby", f"{name}-title {name}-description")
    for word, content in (("description", description), ("title", title)):
        element = ET.Element(f"{{{_SVG}}}{'desc' if word == 'description' else word}", {"id": f"{name}-{word}"})
        element.text = content
        root.insert(0, element)
    ET.register_namespace("", _SVG)
    ET.register_namespace("xlink", _XLINK)
    text = ET.tostring(root, encoding="unicode", short_empty_elements=True)
    return re.sub(r"\n\s*", "", text)


def _is_empty_style(element: object) -> bool:
    """Return True for a `<defs>` that contains only `<style>` elements."""
    children = list(element)  # type: ignore[call-overload]  # an element is iterable
    return (
        getattr(element, "tag", "") == f"{{{_SVG}}}defs"
        and bool(children)
        and all(child.tag == f"{{{_SVG}}}style" for child in children)
    )


def _set_presentation(attributes: dict[str, str]) -> None:
    """Replace the `style` attribute by one attribute for each property, and shorten numbers."""
    for declaration in attributes.pop("style", "").split(";"):
        word, _, value = declaration.partition(":")
        word, value = word.strip(), value.strip()
        if word == "font" and (match := _FONT.match(value)):
            attributes["font-size"] = match["size"]
            attributes.update({f"font-{key}": match[key] for key in ("style", "weight") if match[key]})
        elif word == "font-size":
            attributes[word] = value.removesuffix("px")
        elif word and word not in _WITHOUT_VALUE and word != "font":
            attributes[word] = value
    for word, value in attributes.items():
        if value == INK:
            attributes[word] = "currentColor"
        elif word in ("d", "points", "transform", "x", "y", "width", "height"):
            attributes[word] = _NUMBER.sub(lambda match: f"{float(match[0]):.2f}", value)


def _prefix_ids(attributes: dict[str, str], name: str) -> None:
    """Make ids unique in the page. Links to rows of the page begin with `#e-` and do not change."""
    if "id" in attributes:
        attributes["id"] = f"{name}-{attributes['id']}"
    for word, value in attributes.items():
        if word == f"{{{_XLINK}}}href" and value.startswith("#") and not value.startswith("#e-"):
            attributes[word] = f"#{name}-{value[1:]}"
        elif "url(#" in value:
            attributes[word] = _URL.sub(rf"url(#{name}-\1)", value)


def _describe_link(element: object, tooltips: dict[str, str], add: Callable[..., object]) -> None:
    """Add the tooltip of a link. The Tab key skips the link, because the table of the figure has the same links."""
    attributes: dict[str, str] = element.attrib  # type: ignore[attr-defined]  # an element of ElementTree
    attributes["tabindex"] = "-1"
    attributes.pop("target", None)
    text = tooltips.get(attributes.get(f"{{{_XLINK}}}href", "").removeprefix("#"))
    if text:
        title = add(element, f"{{{_SVG}}}title")
        title.text = text  # type: ignore[attr-defined]  # as above
