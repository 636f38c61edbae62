# SPDX-License-Identifier: Apache-2.0
"""OCI images made by hand: layers as lists of entries, layouts and docker archives as tar files.

An independent writer, so that what the loader reads was not written by the loader's authors' code.
"""
import gzip
import hashlib
import io
import json
import os
import tarfile

ARCH = {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def sha256(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def entry(name, data=None, mode=None, kind=None, target="", uid=0, gid=0, mtime=0, dev=(0, 0), pax=None):
    """A TarInfo and its bytes. Kind: "file", "dir", "link" (symbolic), "hard", "fifo", "char", "block"."""
    if kind is None:
        kind = "dir" if data is None else "file"
    info = tarfile.TarInfo(name)
    info.type = {"file": tarfile.REGTYPE, "dir": tarfile.DIRTYPE, "link": tarfile.SYMTYPE,
                 "hard": tarfile.LNKTYPE, "fifo": tarfile.FIFOTYPE, "char": tarfile.CHRTYPE,
                 "block": tarfile.BLKTYPE}[kind]
    info.mode = mode if mode is not None else (0o755 if kind == "dir" else 0o644)
    info.linkname, info.uid, info.gid, info.mtime = target, uid, gid, mtime
    info.devmajor, info.devminor = dev
    info.pax_headers = pax or {}
    if isinstance(data, str):
        data = data.encode()
    data = data or b""
    info.size = len(data)
    return info, data


def layer(entries):
    """The bytes of an uncompressed layer."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, data in entries:
            tar.addfile(info, io.BytesIO(data) if info.isreg() else None)
    return out.getvalue()


def config(layers, arch=ARCH, **settings):
    """An image configuration; settings are those of its "config" object (Cmd, Env, User...)."""
    return json.dumps({
        "architecture": arch, "os": "linux", "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [sha256(l) for l in layers]},
    }).encode()


def blobs(path, contents):
    """Write {name: bytes} as the tar file @path, or as a directory when it ends in a slash."""
    if path.endswith("/"):
        for name, data in contents.items():
            os.makedirs(os.path.dirname(path + name), exist_ok=True)
            with open(path + name, "wb") as f:
                f.write(data)
        return path
    with tarfile.open(path, "w") as tar:
        for name, data in contents.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def layout_files(layers, name, compress=True, conf=None, **settings):
    """The files of an OCI layout with one image, as {name: bytes}: break them before writing."""
    files = {"oci-layout": b'{"imageLayoutVersion": "1.0.0"}'}

    def add(data, media, **more):
        digest = sha256(data)
        files["blobs/" + digest.replace(":", "/")] = data
        return dict({"mediaType": media, "digest": digest, "size": len(data)}, **more)

    base = "application/vnd.oci.image."
    conf = add(conf or config(layers, **settings), base + "config.v1+json")
    packed = [add(gzip.compress(l, 1, mtime=0), base + "layer.v1.tar+gzip") if compress
              else add(l, base + "layer.v1.tar") for l in layers]
    manifest = add(json.dumps({"schemaVersion": 2, "mediaType": base + "manifest.v1+json",
                               "config": conf, "layers": packed}).encode(),
                   base + "manifest.v1+json",
                   annotations={"org.opencontainers.image.ref.name": name})
    files["index.json"] = json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode()
    return files


def layout(path, layers, name, **settings):
    return blobs(path, layout_files(layers, name, **settings))


def docker_archive(path, layers, name, **settings):
    """What `docker save` writes."""
    conf = config(layers, **settings)
    digest = sha256(conf).split(":")[1]
    files = {digest + ".json": conf}
    names = []
    for l in layers:
        names.append(sha256(l).split(":")[1] + "/layer.tar")
        files[names[-1]] = l
    files["manifest.json"] = json.dumps([{"Config": digest + ".json", "RepoTags": [name],
                                          "Layers": names}]).encode()
    return blobs(path, files)
