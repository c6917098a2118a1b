"""python-tuf over a served folder: refreshes from the given root, finds and downloads targets, prints what it says as JSON.

Usage: client.py SERVED_FOLDER ROOT_FILE WORK_FOLDER NAME...
Exit code 0 and {NAME: {"length", "sha512", "merkle"} or null}; exit code 1 and the error's class if the client refuses.
"""

import hashlib
import json
import os
import sys
from urllib.parse import unquote, urlparse

from tuf.api.exceptions import DownloadError, DownloadHTTPError, RepositoryError
from tuf.ngclient import FetcherInterface, Updater


class Folder(FetcherInterface):
    """The served folder as the client's network."""

    def _fetch(self, url):
        # A metadata address is encoded once; a target's path is put behind its address as it is.
        path = urlparse(url).path if "/targets/" not in url else url[len("file://"):]
        try:
            with open(unquote(path) if not os.path.exists(path) else path, "rb") as file:
                return iter([file.read()])
        except FileNotFoundError as error:
            raise DownloadHTTPError(str(error), 404) from error


def main():
    served, root, work = sys.argv[1:4]
    metadata, targets = os.path.join(work, "metadata"), os.path.join(work, "targets")
    for folder in (metadata, targets):
        os.makedirs(folder, exist_ok=True)
    with open(root, "rb") as file:
        bootstrap = file.read()
    said = {}
    try:
        updater = Updater(
            metadata, f"file://{served}/", targets, f"file://{served}/targets/", Folder(), bootstrap=bootstrap
        )
        updater.refresh()
        for name in sys.argv[4:]:
            target = updater.get_targetinfo(name)
            if target is None:
                said[name] = None
                continue
            with open(updater.download_target(target), "rb") as file:
                content = file.read()
            custom = target.custom or {}
            said[name] = {
                "length": len(content),
                "sha512": hashlib.sha512(content).hexdigest(),
                "merkle": custom.get("merkle"),
            }
    except (RepositoryError, DownloadError) as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 1
    print(json.dumps(said))
    return 0


sys.exit(main())
