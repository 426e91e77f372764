"""What is known of tus servers and services, and what an upload uses there: the built-in presets.

docs/servers/ has a page for each, which names the sources.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

CREATED_BY_SERVICE = "UPLOAD_URL"
"""The endpoint of a service whose API creates the uploads."""


class Preset(NamedTuple):
    """A tus server or service. The fields from `metadata` on are settings of an upload, with the values of options.

    `endpoint` is the form of the URL of `--tus-endpoint`, where words in capitals have to be replaced. `needs` says by
    what, and which values of metadata have to be given. `unknown` names what the sources do not say, as does None for
    `empty_files`; they are sent then. `tells_missing`: GET of an upload answers 404, 410 or 5xx only where its file is
    not stored. `checksum_compared`: the interop run has tried that the server refuses a wrong checksum.
    """

    service: str
    page: str
    endpoint: str
    needs: Mapping[str, str] = {}
    unknown: tuple[str, ...] = ()
    tells_missing: bool = False
    metadata: tuple[str, ...] = ()
    header: tuple[str, ...] = ()
    chunk_rule: str | None = None
    retry_status: tuple[int, ...] = ()
    id_header: str | None = None
    place: tuple[str, ...] = ()
    allowed_names: str | None = None
    parts: bool = False
    part_metadata: bool = True
    checksum: str = "none"
    checksum_compared: bool = False
    empty_files: bool | None = True
    empty_at_creation: bool = False
    bytes_at_creation: bool = True

    @property
    def settings(self) -> dict[str, Any]:
        """The settings of an upload, by the names of their options."""
        return {name: getattr(self, name) for name in SETTINGS if getattr(self, name) not in (None, ())}


SETTINGS = Preset._fields[Preset._fields.index("metadata") :]
"""The names of the fields that are options."""
_OPENCLOUD = Preset(
    "oCIS and OpenCloud",
    "opencloud",
    "https://HOST/dav/spaces/SPACE",
    needs={"SPACE": "the ID of the space, from GET /graph/v1.0/me/drives"},
    unknown=("whether chunks larger than the announced limit are refused",),
    metadata=("filename={name}",),
    chunk_rule="1-10000000",
    id_header="OC-FileId",
    place=("filename",),
    allowed_names=r"[^/\\\r\n\f]",
)
BUILT_IN: Mapping[str, Preset] = {
    "tusd": Preset(
        "tusd",
        "tusd",
        "https://HOST/files/",
        unknown=("limits of its hooks and of its object store",),
        metadata=("filename={name}", "filetype={type}"),
        retry_status=(423,),
        parts=True,
        empty_at_creation=True,
    ),
    "tus-node-server": Preset(
        "@tus/server",
        "tus-node-server",
        "https://HOST/files",
        unknown=("limits and names of its hooks (onUploadCreate, namingFunction)",),
        tells_missing=True,
        metadata=("filename={name}", "filetype={type}"),
        empty_at_creation=True,
    ),
    "tuspyserver": Preset(
        "tuspyserver",
        "tuspyserver",
        "https://HOST/files/",
        unknown=("limits of its hooks (pre_create_hook)",),
        metadata=("filename={name}", "filetype={type}"),
        parts=True,
        empty_at_creation=True,
        bytes_at_creation=False,
    ),
    "cloudflare-stream": Preset(
        "Cloudflare Stream",
        "cloudflare-stream",
        "https://api.cloudflare.com/client/v4/accounts/ACCOUNT/stream",
        needs={"ACCOUNT": "the account ID of the Cloudflare dashboard"},
        unknown=("which characters names may have", "which statuses stand for a lock"),
        metadata=("name={name}", "filetype={type}"),
        chunk_rule="5M-200M/256K",
        id_header="stream-media-id",
        empty_files=None,
    ),
    "supabase": Preset(
        "Supabase Storage",
        "supabase",
        "https://PROJECT.storage.supabase.co/storage/v1/upload/resumable",
        needs={
            "PROJECT": "the ID of the project, from the URL of its dashboard",
            "bucketName": "the bucket, with --metadata bucketName=BUCKET",
        },
        metadata=("bucketName", "objectName={path}", "contentType={type}", "cacheControl=3600"),
        header=("x-upsert: false",),
        chunk_rule="6M",
        retry_status=(409,),
        place=("bucketName", "objectName"),
        allowed_names=r"[A-Za-z0-9_/!.*'() &$@=;:+,?-]",
        empty_files=None,
    ),
    "directus": Preset(
        "Directus",
        "directus",
        "https://HOST/files/tus",
        unknown=("which chunks its storage takes beside those of 8 MiB",),
        metadata=("filename_download={name}", "type={type}"),
        chunk_rule="8M",
        id_header="Directus-File-Id",
        empty_files=False,
    ),
    "transloadit": Preset(
        "Transloadit",
        "transloadit",
        "https://HOST/resumable/files/",
        needs={
            "HOST": "the host of tus_url in the answer that created the Assembly",
            "assembly_url": "assembly_ssl_url of that answer, with --metadata assembly_url=URL",
        },
        unknown=("a rule for chunks", "whether parts would count as files of the Assembly"),
        metadata=("assembly_url", "fieldname=file", "filename={name}"),
        empty_files=None,
    ),
    "vimeo": Preset(
        "Vimeo",
        "vimeo",
        CREATED_BY_SERVICE,
        needs={CREATED_BY_SERVICE: "upload.upload_link of the answer that created the video, with --upload-url URL"},
        unknown=("a rule for chunks", "how long an upload can be resumed"),
        empty_files=None,
    ),
    "filebrowser": Preset(
        "File Browser",
        "filebrowser",
        "https://HOST/api/tus/{path}",
        unknown=("which names its file system refuses",),
    ),
    "opencloud": _OPENCLOUD,
    "ocis": _OPENCLOUD,
}
