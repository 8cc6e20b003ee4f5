"""Content-Type from a file's name. A table of our own: the system's differs between machines, and every node must answer alike."""

from __future__ import annotations

OCTETS = "application/octet-stream"
"""Anything unknown, and packages: what Apple's MDM expects for .pkg (interop.md D.1)."""
_TYPES = {
    "pkg": OCTETS,
    "mpkg": OCTETS,
    "dmg": "application/x-apple-diskimage",
    "iso": "application/x-iso9660-image",
    "ipa": OCTETS,
    "xip": OCTETS,
    "deb": "application/vnd.debian.binary-package",
    "rpm": "application/x-rpm",
    "exe": "application/vnd.microsoft.portable-executable",
    "msi": "application/x-msi",
    "zip": "application/zip",
    "gz": "application/gzip",
    "tgz": "application/gzip",
    "bz2": "application/x-bzip2",
    "xz": "application/x-xz",
    "zst": "application/zstd",
    "7z": "application/x-7z-compressed",
    "tar": "application/x-tar",
    "plist": "application/xml",
    "xml": "application/xml",
    "mobileconfig": "application/x-apple-aspen-config",
    "meta4": "application/metalink4+xml",
    "json": "application/json",
    "yaml": "application/yaml",
    "yml": "application/yaml",
    "txt": "text/plain; charset=utf-8",
    "md": "text/markdown; charset=utf-8",
    "csv": "text/csv; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "htm": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "pdf": "application/pdf",
    "rtf": "application/rtf",
    "png": "image/png",
    "jpg": "image/jpeg",
    "jpeg": "image/jpeg",
    "gif": "image/gif",
    "svg": "image/svg+xml",
    "webp": "image/webp",
    "ico": "image/vnd.microsoft.icon",
    "icns": "image/x-icns",
}


def content_type(path: str) -> str:
    """The media type of a path inside a share, by its last extension in any case; ``OCTETS`` if that says nothing."""
    name = path.rpartition("/")[2]
    stem, dot, extension = name.rpartition(".")
    return _TYPES.get(extension.lower(), OCTETS) if dot and stem else OCTETS
