"""Hub on this machine: a real HTTP server with repositories, commits, LFS and faults, for huggingface_hub and similar clients.

    with Hub() as hub:  # hub.url is what HF_ENDPOINT wants
        hub.create("org/name", {"config.json": b"{}"})
        hub.faults.append(Fault("POST", "/commit/", status=503, times=2))

Of Xet it hands out write tokens for a store in a folder, `hub.store`; else clients run with HF_HUB_DISABLE_XET=1.
Source: huggingface_hub 2.4, hf_api.py, lfs.py, file_download.py.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import re
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".onnx", ".onnx_data", ".pt", ".pt2", ".bin", ".npz", ".h5", ".jpg", ".png")
GITATTRIBUTES = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LARGE).encode()
WRITER, READER = "hf_" + "w" * 34, "hf_" + "r" * 34  # tokens that the Hub knows


@dataclass
class Fault:
    """A fault of requests of a method whose path matches; the first `skip` are spared, then `times` fail (None: all)."""

    method: str
    path: str
    status: int = 0  # answered in place of what was asked
    headers: dict = field(default_factory=dict)
    body: bytes = b"{}"
    drop: str = ""  # the connection closes: before acting, after acting (the answer is lost), or in the body
    corrupt: bool = False  # a byte of the body is another
    truncate: bool = False  # the body ends early, and says so
    times: int | None = 1
    skip: int = 0

    def strikes(self, method, path):
        if self.method not in (method, "ANY"):
            return False
        if not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if not self.times:
                return False
            self.times -= 1
        return True


@dataclass
class Commit:
    oid: str
    parent: str | None
    title: str
    files: dict  # path -> bytes


@dataclass
class Repository:
    private: bool = False
    gated: bool = False
    commits: dict = field(default_factory=dict)  # oid -> Commit
    refs: dict = field(default_factory=dict)  # refs/heads/main -> oid

    def at(self, revision):
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            if name in self.refs:
                return self.commits[self.refs[name]]
        return self.commits.get(revision)

    def add(self, ref, title, files):
        parent = self.refs.get(ref)
        oid = hashlib.sha1(f"{parent}{title}{sorted((k, sha256(v)) for k, v in files.items())}".encode()).hexdigest()
        self.commits[oid] = Commit(oid, parent, title, files)
        self.refs[ref] = oid
        return oid

    def history(self, revision="main"):
        found, commit = [], self.at(revision)
        while commit is not None:
            found.append(commit)
            commit = self.commits.get(commit.parent)
        return found


@dataclass
class Stored:
    """What the Hub knows of a file in a Xet store."""

    oid: str
    size: int

    def __len__(self):
        return self.size


class Answer(Exception):
    """An answer that ends a request early."""

    def __init__(self, status, body=None, code=None, **headers):
        super().__init__(status)
        self.status, self.body = status, {"error": code or "no"} if body is None else body
        self.headers = {k.replace("_", "-"): v for k, v in headers.items()}
        if code is not None:
            self.headers |= {"X-Error-Code": code, "X-Error-Message": code}


class Hub:
    """The server and what it holds; a context manager."""

    def __init__(self, port=0):
        self.repositories, self.objects, self.log, self.faults = {}, {}, [], []
        self.store = None  # the folder of a Xet store
        self.tokens = {WRITER: "write", READER: "read"}
        self.lock = threading.RLock()
        self.on_request = lambda method, path: None
        self.server = ThreadingHTTPServer(("127.0.0.1", port), type("Bound", (Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self):
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def create(self, repo, files=None, *, private=False, gated=False):
        self.repositories[repo] = Repository(private, gated)
        self.repositories[repo].add("refs/heads/main", "initial commit", {".gitattributes": GITATTRIBUTES, **(files or {})})

    def push(self, repo, files, revision="main"):
        """Commit files as someone else."""
        known = self.repositories[repo]
        return known.add(f"refs/heads/{revision}", "someone else's", {**known.at(revision).files, **files})

    def files(self, repo, revision="main"):
        return self.repositories[repo].at(revision).files

    def titles(self, repo, revision="main"):
        """The titles of the commits, the newest first."""
        return [commit.title for commit in self.repositories[repo].history(revision)]

    def asked(self, method, path=""):
        """The number of matching requests."""
        return sum(entry["method"] == method and re.search(path, entry["path"]) is not None for entry in self.log)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Hub

    def log_message(self, *_):
        pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True

    def do(self):
        path = unquote(urlsplit(self.path).path)
        self.query = {k: v[0] for k, v in parse_qs(urlsplit(self.path).query).items()}
        self.content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        if self.headers.get("Transfer-Encoding") == "chunked":
            while size := int(self.rfile.readline(), 16):
                self.content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        bearer = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        entry = {"method": self.command, "path": path, "authorised": bool(bearer), "range": self.headers.get("Range")}
        self.hub.log.append(entry)
        self.hub.on_request(self.command, path)
        fault = next((f for f in self.hub.faults if f.strikes(self.command, path)), None)
        if fault is not None and fault.status:
            return self.reply(fault.status, fault.body, fault.headers)
        if fault is not None and fault.drop == "before":
            return self.hang_up()
        try:
            self.right = self.hub.tokens.get(bearer) if bearer else ""
            with self.hub.lock:
                body, headers = self.act(path)
            status = 200
        except Answer as answer:
            status, body, headers = answer.status, answer.body, answer.headers
        if fault is not None and fault.drop == "after":
            return self.hang_up()
        return self.reply(status, body, headers, fault)

    do_GET = do_HEAD = do_POST = do_PUT = do_DELETE = do  # noqa: N815

    def hang_up(self):
        self.close_connection = True
        self.connection.close()

    def reply(self, status, body, headers, fault=None):
        if not isinstance(body, bytes):
            body, headers = json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
        if self.command == "GET" and "ETag" in headers and status == 200 and self.headers.get("Range"):
            start = int(re.match(r"bytes=(\d+)-", self.headers["Range"])[1])
            headers = {**headers, "Content-Range": f"bytes {start}-{len(body) - 1}/{len(body)}"}
            status, body = 206, body[start:]
        if fault is not None and fault.corrupt and body:
            body = body[:-1] + bytes([body[-1] ^ 1])
        if fault is not None and fault.truncate:
            body = body[: len(body) // 2]
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", headers.get("Content-Length", str(len(body))))
        self.end_headers()
        if self.command == "HEAD":
            return None
        if fault is not None and fault.drop == "body":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            return self.hang_up()
        return self.wfile.write(body)

    # what is asked

    def act(self, path):
        for method, pattern, do in ROUTES:
            match = re.fullmatch(pattern, path)
            if match and self.command in method.split("|"):
                return do(self, **match.groupdict())
        raise Answer(404, code="NotFound")

    def repository(self, repo, *, write=False):
        found = self.hub.repositories.get(repo)
        if self.right is None:
            raise Answer(401, {"error": "Invalid user token."}, X_Error_Message="Invalid credentials in Authorization header")
        if found is None or (found.private and not self.right):
            raise Answer(404 if self.right else 401, code="RepoNotFound")
        if found.gated and not write and self.right != "write":
            raise Answer(403, code="GatedRepo")
        if write and self.right != "write":
            message = "you must use a write token to write to this repository"
            raise Answer(403 if self.right else 401, {"error": message}, X_Error_Message=message)
        return found

    def commit(self, repo, revision, **how):
        found = self.repository(repo, **how).at(revision)
        if found is None:
            raise Answer(404, code="RevisionNotFound")
        return found

    def whoami(self):
        if not self.right:
            raise Answer(401, {"error": "Invalid credentials"}, X_Error_Message="Invalid credentials in Authorization header")
        return {"type": "user", "name": "org", "orgs": [], "auth": {"accessToken": {"role": self.right}}}, {}

    def create_repo(self):
        asked = json.loads(self.content)
        repo = f"{asked.get('organization') or 'org'}/{asked['name']}"
        if self.right != "write":
            raise Answer(403 if self.right else 401, {"error": "no right to create"}, X_Error_Message="no right to create")
        if repo in self.hub.repositories:
            raise Answer(409, {"error": "You already created this model repo", "url": f"{self.hub.url}/{repo}"})
        private = asked.get("visibility") == "private" or asked.get("private") is True
        self.hub.create(repo, private=private)
        return {"url": f"{self.hub.url}/{repo}"}, {}

    def validate(self):
        return {"errors": [], "warnings": []}, {}

    def info(self, repo, revision="main"):
        found = self.commit(repo, revision)
        known = self.hub.repositories[repo]
        siblings = []
        for name, content in found.files.items():
            lfs = {"lfs": {"sha256": sha256(content), "size": len(content), "pointerSize": 130}} if is_lfs(name) else {}
            siblings.append({"rfilename": name, "size": len(content), "blobId": blob_id(name, content), **lfs})
        about = {"id": repo, "modelId": repo, "private": known.private, "gated": known.gated, "tags": [], "downloads": 0}
        return {**about, "_id": "0", "sha": found.oid, "siblings": siblings}, {}

    def tree(self, repo, revision):
        found = []
        for name, content in self.commit(repo, revision).files.items():
            lfs = {"lfs": {"oid": sha256(content), "size": len(content), "pointerSize": 130}} if is_lfs(name) else {}
            found.append({"type": "file", "path": name, "size": len(content), "oid": blob_id(name, content), **lfs})
        return found, {}

    def refs(self, repo):
        found = {"branches": [], "tags": [], "converts": [], "pullRequests": []}
        kinds = {"refs/heads/": "branches", "refs/tags/": "tags", "refs/pr/": "pullRequests"}
        for ref, oid in self.repository(repo).refs.items():
            kind = next(kind for start, kind in kinds.items() if ref.startswith(start))
            found[kind].append({"name": ref.split("/", 2)[2], "ref": ref, "targetCommit": oid})
        return found, {}

    def branch(self, repo, branch):
        known = self.repository(repo, write=True)
        if f"refs/heads/{branch}" in known.refs:
            raise Answer(409, {"error": "Reference already exists"})
        start = json.loads(self.content or b"{}").get("startingPoint", "main")
        known.refs[f"refs/heads/{branch}"] = known.at(start).oid
        return {}, {}

    def tag(self, repo, revision):
        name = json.loads(self.content)["tag"]
        commit = self.commit(repo, revision, write=True)
        known = self.hub.repositories[repo]
        if f"refs/tags/{name}" in known.refs:
            raise Answer(409, {"error": "Reference already exists"})
        known.refs[f"refs/tags/{name}"] = commit.oid
        return {}, {}

    def preupload(self, repo, revision):
        commit = self.commit(repo, revision, write=True)
        ignored = commit.files.get(".gitignore", b"").decode().split()
        found = []
        for file in json.loads(self.content)["files"]:
            name, there = file["path"], commit.files.get(file["path"])
            oid = {} if there is None else {"oid": sha256(there) if is_lfs(name) else git_oid(there)}
            drop = any(fnmatch.fnmatch(part, pattern.strip("/")) for pattern in ignored for part in (name, *name.split("/")))
            found.append({"path": name, "uploadMode": "lfs" if is_lfs(name) else "regular", "shouldIgnore": drop, **oid})
        return {"files": found}, {}

    def xet_token(self, repo, revision):
        self.repository(repo, write=True)
        if self.hub.store is None:
            raise Answer(404, code="NotFound")
        about = {"casUrl": f"local://{self.hub.store}", "accessToken": "t", "exp": int(time.time()) + 3600}
        headers = {"X-Xet-Cas-Url": about["casUrl"], "X-Xet-Access-Token": "t", "X-Xet-Token-Expiration": str(about["exp"])}
        return about, headers

    def batch(self, repo):
        self.repository(repo, write=True)
        found = []
        for asked in json.loads(self.content)["objects"]:
            known = asked["oid"] in self.hub.objects
            actions = {"upload": {"href": f"{self.hub.url}/objects/{asked['oid']}"}}
            actions["verify"] = {"href": f"{self.hub.url}/{repo}.git/info/lfs/verify"}
            found.append({**asked, **({} if known else {"actions": actions})})
        return {"transfer": "basic", "objects": found}, {}

    def put(self, oid):
        if sha256(self.content) != oid:
            raise Answer(400, {"error": "not the object that was announced"})
        self.hub.objects[oid] = self.content
        return b"", {}

    def verify(self, repo):
        asked = json.loads(self.content)
        if len(self.hub.objects.get(asked["oid"], b"")) != asked["size"]:
            raise Answer(404, {"error": "no such object"})
        return {}, {}

    def send(self, repo, revision):
        commit = self.commit(repo, revision, write=True)
        known = self.hub.repositories[repo]
        lines = [json.loads(line) for line in self.content.decode().splitlines()]
        head = next(line["value"] for line in lines if line["key"] == "header")
        if head.get("parentCommit") not in (None, commit.oid):
            message = "A commit has happened since. Please refresh and try again."
            raise Answer(412, {"error": message}, X_Error_Message=message)
        files = dict(commit.files)
        for line in lines:
            value = line["value"]
            match line["key"]:
                case "file":
                    files[value["path"]] = base64.b64decode(value["content"])
                case "lfsFile":
                    if value["oid"] not in self.hub.objects and self.hub.store is not None:
                        files[value["path"]] = Stored(value["oid"], value["size"])
                        continue
                    if value["oid"] not in self.hub.objects:
                        raise Answer(400, {"error": f"LFS object {value['oid']} was never uploaded"})
                    files[value["path"]] = self.hub.objects[value["oid"]]
                case "deletedFile":
                    del files[value["path"]]
        if self.query.get("create_pr") == "1":
            number = 1 + sum(ref.startswith("refs/pr/") for ref in known.refs)
            known.refs[f"refs/pr/{number}"] = commit.oid
            oid = known.add(f"refs/pr/{number}", head["summary"], files)
            url = f"{self.hub.url}/{repo}/discussions/{number}"
            return {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid, "pullRequestUrl": url}, {}
        oid = known.add(f"refs/heads/{revision}", head["summary"], files)
        return {"commitUrl": f"{self.hub.url}/{repo}/commit/{oid}", "commitOid": oid}, {}

    def resolve(self, repo, revision, file):
        commit = self.commit(repo, revision)
        if file not in commit.files:
            raise Answer(404, code="EntryNotFound", X_Repo_Commit=commit.oid)
        content = commit.files[file]
        etag = sha256(content) if is_lfs(file) else git_oid(content)
        headers = {"ETag": f'"{etag}"', "X-Repo-Commit": commit.oid, "Accept-Ranges": "bytes"}
        headers["Content-Type"] = "application/octet-stream"
        if is_lfs(file):
            headers |= {"X-Linked-ETag": f'"{etag}"', "X-Linked-Size": str(len(content))}
        return content, headers


REPO, REVISION = r"(?P<repo>[\w.-]+/[\w.-]+)", r"(?P<revision>(?:refs/)?[\w./-]+?)"
ROUTES = (
    ("GET", "/api/whoami-v2", Handler.whoami),
    ("POST", "/api/repos/create", Handler.create_repo),
    ("POST", "/api/validate-yaml", Handler.validate),
    ("GET", f"/api/models/{REPO}", Handler.info),
    ("GET", f"/api/models/{REPO}/revision/{REVISION}", Handler.info),
    ("GET", f"/api/models/{REPO}/tree/{REVISION}", Handler.tree),
    ("GET", f"/api/models/{REPO}/refs", Handler.refs),
    ("POST", rf"/api/models/{REPO}/branch/(?P<branch>[\w./-]+)", Handler.branch),
    ("POST", f"/api/models/{REPO}/tag/{REVISION}", Handler.tag),
    ("POST", f"/api/models/{REPO}/preupload/{REVISION}", Handler.preupload),
    ("POST", f"/api/models/{REPO}/commit/{REVISION}", Handler.send),
    ("GET", f"/api/models/{REPO}/xet-write-token/{REVISION}", Handler.xet_token),
    ("POST", rf"/{REPO}\.git/info/lfs/objects/batch", Handler.batch),
    ("POST", rf"/{REPO}\.git/info/lfs/verify", Handler.verify),
    ("PUT", r"/objects/(?P<oid>[0-9a-f]{64})", Handler.put),
    ("GET|HEAD", rf"/{REPO}/resolve/{REVISION}/(?P<file>(?!pr/).+)", Handler.resolve),
)


def is_lfs(name):
    return name.endswith(LARGE)


def sha256(content):
    if isinstance(content, Stored):
        return content.oid
    return hashlib.sha256(content).hexdigest()


def git_oid(content):
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def blob_id(name, content):
    """The git blob id of a file; for a large file, that of its LFS pointer."""
    if not is_lfs(name):
        return git_oid(content)
    return git_oid(f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256(content)}\nsize {len(content)}\n".encode())


if __name__ == "__main__":
    with Hub(int(sys.argv[1]) if len(sys.argv) > 1 else 0) as running:
        print(running.url, flush=True)
        while True:
            time.sleep(3600)
