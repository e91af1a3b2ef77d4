"""Object storage: a folder or an S3-compatible bucket behind one small interface.

Keys are relative, `/`-separated and can never leave the root. Writes are atomic: a key is absent or whole.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from pipeline.errors import UserError

_PART_SUFFIX = ".part"

_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""A disk that is full, a quota that is used up, a disk that only lets read."""


def is_no_room(error: BaseException) -> bool:
    """Whether a disk takes no more, so that another try cannot help."""
    return isinstance(error, OSError) and error.errno in _NO_ROOM


class Store(Protocol):
    """A root that jobs read and write. Implementations are picklable and safe to use from several processes.

    What writes raises UserError where the disk takes no more.
    """

    @property
    def url(self) -> str:
        """The root as the user names it."""

    def read(self, key: str) -> bytes:
        """All of it. Raises FileNotFoundError."""

    def read_range(self, key: str, *, start: int, length: int) -> bytes:
        """`length` bytes from `start`. Raises FileNotFoundError."""

    def write(self, key: str, data: bytes) -> None:
        """Put `data` there atomically, replacing what was there."""

    def upload(self, key: str, path: Path) -> None:
        """Put a local file there atomically, replacing what was there."""

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """Put `data` there only if the key is absent; False if it is present, whoever was first.

        `private` is for secrets: a file that only its owner may read. In a bucket the bucket's own rules decide.
        """

    def size(self, key: str) -> int | None:
        """Bytes, or None if the key is absent."""

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that begin with `prefix`, sorted."""

    def delete(self, key: str) -> None:
        """Remove the key; nothing happens if it is absent."""


def check_key(key: str) -> str:
    """The key itself, if it stays inside its root.

    Raises:
        UserError: it is empty, absolute, or has an empty, `.` or `..` part, a backslash or a control character.
    """
    if any(part in ("", ".", "..") for part in key.split("/")) or re.search(r"[\\\x00-\x1f]", key):
        raise UserError(f"key {key!r} would leave its root or cannot be stored: use plain names joined by '/'")
    return key


def _told_full(root: str, error: OSError) -> str:
    return f"root {root} takes no more ({error.strerror}): make room there, then run the same command again to go on"


@dataclass(frozen=True, slots=True)
class FolderStore:
    """A folder on a local or shared disk."""

    folder: Path

    @property
    def url(self) -> str:
        """The folder's path."""
        return str(self.folder)

    def path(self, key: str) -> Path:
        """Where the key lies."""
        return self.folder / check_key(key)

    def read(self, key: str) -> bytes:
        """See Store."""
        return self.path(key).read_bytes()

    def read_range(self, key: str, *, start: int, length: int) -> bytes:
        """See Store."""
        with self.path(key).open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextmanager
    def _filled(self, key: str, source: BinaryIO, *, private: bool = False) -> Iterator[Path]:
        """A file beside the key with all that `source` holds, safe on the disk; gone at the end, unless renamed."""
        target = self.path(key)
        part = None
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=_PART_SUFFIX)
            part = Path(name)
            with os.fdopen(handle, "wb") as file:
                if not private:
                    os.fchmod(handle, 0o644)  # mkstemp's 0600 would hide a shared root from others
                shutil.copyfileobj(source, file, 1 << 20)
                file.flush()
                os.fsync(handle)  # before any commit that names it
            yield part
        except OSError as error:
            if is_no_room(error):
                raise UserError(_told_full(self.url, error)) from error
            raise
        finally:
            if part is not None:
                part.unlink(missing_ok=True)

    def write(self, key: str, data: bytes) -> None:
        """See Store."""
        with self._filled(key, BytesIO(data)) as part:
            part.replace(self.path(key))

    def upload(self, key: str, path: Path) -> None:
        """See Store."""
        with path.open("rb") as source, self._filled(key, source) as part:
            part.replace(self.path(key))

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """See Store. A hard link is the one atomic create-if-absent that also publishes whole content."""
        with self._filled(key, BytesIO(data), private=private) as part:
            try:
                os.link(part, self.path(key))
            except FileExistsError:
                return False
        return True

    def size(self, key: str) -> int | None:
        """See Store."""
        try:
            return self.path(key).stat().st_size
        except FileNotFoundError:
            return None

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store."""
        top = self.folder / prefix.rpartition("/")[0]
        found = (p for p in top.rglob("*") if p.is_file() and not p.name.endswith(_PART_SUFFIX))
        yield from sorted(k for p in found if (k := p.relative_to(self.folder).as_posix()).startswith(prefix))

    def delete(self, key: str) -> None:
        """See Store."""
        self.path(key).unlink(missing_ok=True)


@lru_cache(maxsize=4)
def _s3_client(pid: int, endpoint: str | None) -> Any:
    """One boto3 client per process (clients do not survive a fork); boto3's own environment and files configure it.

    `endpoint` is what the environment says now: a client keeps to that of when it was made.
    """
    import boto3
    from botocore.config import Config

    retries = {"max_attempts": 8, "mode": "standard"}
    return boto3.client("s3", config=Config(connect_timeout=10, read_timeout=60, retries=retries))


@dataclass(frozen=True, slots=True)
class S3Store:
    """A prefix in a bucket of any S3-compatible endpoint (`AWS_ENDPOINT_URL` names another than Amazon's)."""

    bucket: str
    prefix: str

    @property
    def url(self) -> str:
        """`s3://bucket/prefix`."""
        return f"s3://{self.bucket}/{self.prefix}".rstrip("/")

    @property
    def _client(self) -> Any:
        return _s3_client(os.getpid(), os.environ.get("AWS_ENDPOINT_URL"))

    def _name(self, key: str) -> str:
        return f"{self.prefix}/{check_key(key)}" if self.prefix else check_key(key)

    def _get(self, key: str, **extra: str) -> bytes:
        try:
            body: bytes = self._client.get_object(Bucket=self.bucket, Key=self._name(key), **extra)["Body"].read()
        except self._client.exceptions.NoSuchKey as error:
            raise FileNotFoundError(f"{self.url}/{key}") from error
        return body

    def read(self, key: str) -> bytes:
        """See Store."""
        return self._get(key)

    def read_range(self, key: str, *, start: int, length: int) -> bytes:
        """See Store."""
        return self._get(key, Range=f"bytes={start}-{start + length - 1}") if length else b""

    def write(self, key: str, data: bytes) -> None:
        """See Store."""
        self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data)

    def upload(self, key: str, path: Path) -> None:
        """See Store; in parts, so that a large shard is whole or absent."""
        self._client.upload_file(str(path), self.bucket, self._name(key))

    def create(self, key: str, data: bytes, *, private: bool = False) -> bool:
        """See Store."""
        from botocore.exceptions import ClientError

        try:
            self._client.put_object(Bucket=self.bucket, Key=self._name(key), Body=data, IfNoneMatch="*")
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] in (409, 412):
                return False
            raise
        return True

    def size(self, key: str) -> int | None:
        """See Store."""
        from botocore.exceptions import ClientError

        try:
            return int(self._client.head_object(Bucket=self.bucket, Key=self._name(key))["ContentLength"])
        except ClientError as error:
            if error.response["ResponseMetadata"]["HTTPStatusCode"] == 404:
                return None
            raise

    def list(self, prefix: str = "") -> Iterator[str]:
        """See Store."""
        root = f"{self.prefix}/" if self.prefix else ""
        for page in self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=root + prefix):
            for item in page.get("Contents", ()):
                yield item["Key"].removeprefix(root)

    def delete(self, key: str) -> None:
        """See Store."""
        self._client.delete_object(Bucket=self.bucket, Key=self._name(key))


def open_store(root: str, *, create: bool = False) -> Store:
    """The store of a root; with `create`, a missing folder is made (a bucket never is).

    Raises:
        UserError: the root does not exist, cannot be written, or its endpoint cannot be reached.
    """
    if root.startswith("s3://"):
        bucket, _, prefix = root.removeprefix("s3://").partition("/")
        return _open_bucket(S3Store(bucket, prefix.strip("/")))
    if "://" in root:
        raise UserError(f"root {root!r}: only a folder or s3://bucket/prefix can be a root")
    return _open_folder(Path(root).expanduser().absolute(), create=create)


def _open_folder(folder: Path, *, create: bool) -> FolderStore:
    if folder.exists() and not folder.is_dir():
        raise UserError(f"root {folder} is a file: name a folder")
    if not folder.exists() and not create:
        raise UserError(f"root {folder} does not exist: run the earlier verbs first, or check the path")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise UserError(f"root {folder} cannot be written ({error.strerror}): choose a folder you own") from error
    return FolderStore(folder)


def _open_bucket(store: S3Store) -> S3Store:
    from botocore.exceptions import BotoCoreError, ClientError

    if not store.bucket:
        raise UserError("root s3:// has no bucket: write s3://bucket/prefix")
    try:
        store._client.head_bucket(Bucket=store.bucket)
    except ClientError as error:
        code = error.response["ResponseMetadata"]["HTTPStatusCode"]
        reason = {404: "no such bucket: create it first", 403: "access denied: check the keys"}.get(code, str(error))
        raise UserError(f"root {store.url}: {reason}") from error
    except BotoCoreError as error:
        raise UserError(f"root {store.url}: {error}: check AWS_ENDPOINT_URL and the AWS credentials") from error
    return store
