"""PASCAL VOC's XML, which ImageNet uses too: one file per image, matched by file stem."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any
from xml.etree.ElementTree import ParseError
from xml.sax.saxutils import escape

from defusedxml import ElementTree

from sensloc.datasets.annotation import NO_BOX, Unit
from sensloc.datasets.files import IMAGE_SUFFIXES, Tree, by_stem, chunks
from sensloc.datasets.values import Object, Size, declared_size, number
from sensloc.errors import one_line

CORNERS = ("xmin", "ymin", "xmax", "ymax")


@dataclass(frozen=True)
class AnnotatedImage:
    """An image and what its annotation says; its class is not chosen yet.

    Attributes:
        image_id: the file stem.
        uri: where the image is, or should be.
        file: of the annotation, relative to the root; empty where there is none.
        objects: as written; empty where there is no annotation or it cannot be read.
        size: as declared, or None.
        left_out: "no box" where there is no annotation, or another reason; or None.
        error: what is wrong, naming the file, or None.
    """

    image_id: str
    uri: str
    file: str = ""
    objects: list[Object] = field(default_factory=list)
    size: Size | None = None
    left_out: str | None = None
    error: str | None = None


def parse(data: bytes) -> tuple[list[Object], Size | None]:
    """Parse an XML file: its objects in order, and the declared size.

    Raises:
        ValueError: it is not XML, or not such an annotation: the message says where.
    """
    try:
        root = ElementTree.fromstring(data)
    except (ParseError, LookupError, ValueError) as error:  # ValueError: entities, encodings
        raise ValueError(f"not a readable XML file: {one_line(str(error), 200)}") from error
    if root.tag != "annotation":
        raise ValueError(f"the root element is <{one_line(root.tag, 100)}>, not <annotation>")
    size = declared_size(root.findtext("size/width"), root.findtext("size/height"))
    return [_object(element) for element in root.findall("object")], size


def write(name: str, size: Size, objects: Iterable[tuple[str, Iterable[float]]]) -> bytes:
    """Write an XML file that ``parse`` reads.

    Args:
        name: of the image's file.
        size: width and height of the image, in pixels.
        objects: class and corners of each, as they shall stand there.
    """
    width, height = size
    items = "".join(
        f"\t<object>\n\t\t<name>{escape(label)}</name>\n\t\t<bndbox>\n"
        + "".join(f"\t\t\t<{k}>{v:g}</{k}>\n" for k, v in zip(CORNERS, corners, strict=True))
        + "\t\t</bndbox>\n\t</object>\n"
        for label, corners in objects
    )
    return (
        f"<annotation>\n\t<filename>{escape(name)}</filename>\n"
        f"\t<size>\n\t\t<width>{width}</width>\n\t\t<height>{height}</height>\n"
        f"\t\t<depth>3</depth>\n\t</size>\n{items}</annotation>\n"
    ).encode()


def _object(element: Any) -> Object:
    """Return the object of an <object>; its parts (<part>), which have boxes too, are skipped."""
    name = (element.findtext("name") or "").strip()
    if not name:
        raise ValueError("an <object> without a <name>")
    box, who = element.find("bndbox"), one_line(name, 100)
    if box is None:
        raise ValueError(f"an <object> ({who}) without a <bndbox>")
    corners = []
    for key in CORNERS:
        try:
            corners.append(number(box.findtext(key)))
        except ValueError as error:
            raise ValueError(f"<{key}> of an <object> ({who}): {error}") from error
    return name, corners


def list_pairs(tree: Tree, images: str, xmls: str, size: int) -> list[Unit]:
    """List a folder of images and one of XML files, each in one call.

    Returns:
        Units of at most ``size`` stems: ``images`` and ``xmls`` are file names.

    Raises:
        DatasetError: one of the two is missing or empty.
    """
    image_of = by_stem(tree.files(images, IMAGE_SUFFIXES, required=True))
    xml_of = by_stem(tree.files(xmls, (".xml",), required=True))
    return [
        {
            "images": [image_of[stem] for stem in stems if stem in image_of],
            "xmls": [xml_of[stem] for stem in stems if stem in xml_of],
        }
        for stems in chunks(sorted(image_of.keys() | xml_of.keys()), size)
    ]


def read_pairs(
    tree: Tree, image_folder: str, images: Sequence[str], xml_folder: str, xmls: Sequence[str]
) -> Iterator[AnnotatedImage]:
    """Read the XML files and match them with the images, in the order of the stems.

    An image without XML is left out ("no box"). An XML file without its image, or one that
    cannot be read, has an ``error``. <filename> and <folder> are not used: in what is
    distributed they are often wrong, and so they can lead nowhere.
    """
    image_of, xml_of = by_stem(images), by_stem(xmls)
    files = {stem: f"{xml_folder}/{name}" for stem, name in sorted(xml_of.items())}
    contents = dict(zip(files, tree.fetch(files.values()), strict=True))
    for stem in sorted(image_of.keys() | files.keys()):
        image = f"{image_folder}/{image_of.get(stem, stem)}"
        uri, file = tree.url(image), files.get(stem, "")
        if not file:
            yield AnnotatedImage(stem, uri, left_out=NO_BOX)
            continue
        try:
            content = contents[stem]
            if isinstance(content, Exception):
                raise ValueError(f"cannot be read: {content}")
            objects, size = parse(content)
        except ValueError as error:
            yield AnnotatedImage(stem, uri, file, error=f"{file}: {error}")
            continue
        missing = None if stem in image_of else f"{file}: no image {image}.*"
        yield AnnotatedImage(stem, uri, file, objects, size, error=missing)
