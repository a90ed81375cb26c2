"""Recognises by its first bytes a file that is not what its name says (HTML page, git-lfs pointer, …), and says what to do."""

import re

from components.classifier.errors import DataError

_STAND_INS = {
    re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*)*<(!doctype html|html|head|body|meta|title|script)\b", re.IGNORECASE | re.DOTALL): (
        "an HTML page; a download may have given a login or error page"
    ),
    re.compile(rb"version https://git-lfs"): "a git-lfs pointer, not the file itself; run `git lfs pull`",
    re.compile(rb"[./\\git]*annex[/\\]objects[/\\]"): "a git-annex pointer, not the file itself; run `git annex get`",
    re.compile(rb"L\0\0\0\x01\x14\x02\0|\[InternetShortcut\]"): "a Windows shortcut, not the file itself; copy the file that it points to",
    re.compile(rb"book\0\0\0\0mark"): "a macOS alias, not the file itself; copy the file that it points to",
    re.compile(rb"\0\x05\x16[\0\x07]"): "what macOS keeps beside a file (AppleDouble), not the file itself; copy the other one",
    re.compile(
        rb"PK\x03\x04.{26}(\[Content_Types\]|_rels/|docProps/|xl/|mimetypeapplication/vnd\.oasis)|\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        re.DOTALL,
    ): "a document of Excel or another office program; save a table as 'CSV UTF-8', and pictures as files",
    re.compile(rb"(<\?xml[^>]*>\s*)?<Error>"): "an error message of a store, not the file itself; download it again",
}
"""What lies in place of files now and then, by how it begins."""
_NOT_PICTURES = {
    re.compile(rb"(\.{0,2}/)*([^\s/\0]+/)*[^\s/\0]+\.(png|jpe?g|bmp|gif|webp|tiff?)\s*\Z", re.IGNORECASE): (
        "the text of a link, not the picture itself; check it out where links are made (git config core.symlinks true)"
    ),
    re.compile(rb"data:image/|iVBORw0KGgo|/9j/[24]"): "a picture in base64, not its bytes; decode it",
    re.compile(rb"[{\[]\s*[\"{\[]"): "a JSON text, not a picture; a download may have given an error message",
    re.compile(rb"(<\?xml[^>]*>\s*)?(<!--.*?-->\s*|<!doctype svg[^>]*>\s*)*<svg\b", re.IGNORECASE | re.DOTALL): (
        "an SVG drawing, which has no pixels; save it as PNG"
    ),
    re.compile(rb"\xff\xd8\xff"): (
        "a JPEG of a kind that is not read (of more than 8 bits per sample, or JPEG-LS), or one that is cut within its first bytes; "
        "save it as PNG, or as a JPEG of 8 bits"
    ),
    re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "): "a JPEG XL picture, which is not read; save it as PNG or JPEG",
    re.compile(rb"II\xbc"): "a JPEG XR picture, which is not read; save it as PNG or JPEG",
    re.compile(rb".{128}DICM", re.DOTALL): (
        "a DICOM file, whose values have a meaning only with its own tables; save its picture as PNG or TIFF of 8 or 16 bits"
    ),
    re.compile(rb"8BPS"): "a Photoshop document, not a picture; save it as PNG or TIFF",
    re.compile(rb"FUJIFILMCCD-RAW|....ftypcrx |IIR[OS]|IIU\0|FOVb|\0MRM", re.DOTALL): (
        "a camera's raw file, not a picture; convert it to JPEG, PNG or TIFF"
    ),
    re.compile(rb"\0\0[\x01\x02]\0[^\0]\0|icns"): "an icon, which holds a picture in several sizes; save one of them as PNG",
    re.compile(rb"qoif|DDS |gimp xcf|%!PS|#\?R|P[7Ff]\s|FLIF|BPG\xfb|AT&TFORM|SIMPLE  =|\x01\xda[\0\x01][\x01\x02]"): (
        "a picture of a kind that is not read; save it as PNG"
    ),
    re.compile(rb"v/1\x01"): "an OpenEXR picture, of floating point; save it with 8 or 16 bits",
    re.compile(rb"%PDF-"): "a PDF document, not a picture; save its pages as PNG",
    re.compile(
        rb"....ftyp(isom|iso2|avc1|mp4|M4V|qt|3gp)|RIFF....AVI |\x1aE\xdf\xa3", re.DOTALL
    ): "a video, not a picture; save its frames as PNG or JPEG",
    re.compile(rb"\0{256,}\Z"): "zeros from its beginning on, not a picture; copy it again",
    re.compile(rb"PK\x03\x04|\x1f\x8b|BZh|\xfd7zXZ|\x28\xb5\x2f\xfd|7z\xbc\xaf|Rar!"): "an archive or compressed, not a picture; unpack it",
}
"""What else lies under pictures' names now and then, by how it begins."""


def stand_in(data: bytes) -> str | None:
    """What lies in a file's place, such as "a git-lfs pointer, not the file itself; …"; None where its first bytes are none of that."""
    return _described(_STAND_INS, data)


def refuse_stand_in(name: str, data: bytes) -> None:
    """Raise DataError, naming the file, where its first bytes are those of something that lies in its place."""
    if told := stand_in(data):
        raise DataError(f"{name} is {told}")


def other_content(data: bytes) -> str | None:
    """What bytes are that are not a picture, such as "a PDF document, not a picture; …"; None where their beginning does not tell."""
    return _described(_NOT_PICTURES, data)


def _described(kinds: dict[re.Pattern[bytes], str], data: bytes) -> str | None:
    head = data[:1024].lstrip(b"\xef\xbb\xbf \t\r\n")
    return next((description for kind, description in kinds.items() if kind.match(head)), None)
