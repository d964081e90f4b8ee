"""Virtual hosts, accounts and rights of a broker, through RabbitMQ's management API.

Every call is idempotent: putting what exists changes it to what was said, deleting what is gone changes nothing.
Proxies of the environment are ignored, because the console of a broker is a local or an internal address.
"""

import base64
import json
import urllib.error
import urllib.request
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote, urlsplit

from broker.errors import LinkError, LinkRefused
from broker.topology import Rights

TIMEOUT_S: Final = 15.0

Record = dict[str, Any]


class Management:
    """A client of the management API at `url` (http://host:15672) as `user`. Holds no connection; thread-safe.

    Every method raises LinkRefused if the login or a right is missing and LinkError for all else.
    """

    def __init__(self, url: str, user: str, password: str) -> None:
        self.url = url.rstrip("/")
        self._user = user
        login = base64.b64encode(f"{user}:{password}".encode()).decode()
        self._headers = {"Authorization": f"Basic {login}", "Content-Type": "application/json"}
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))

    def put_vhost(self, name: str) -> None:
        """Create a virtual host; nobody has rights on it yet but its creator."""
        self._call("PUT", f"vhosts/{_quoted(name)}", {})

    def delete_vhost(self, name: str) -> None:
        """Delete a virtual host with all queues and messages in it."""
        self._delete(f"vhosts/{_quoted(name)}")

    def put_user(self, name: str, password: str, tags: str = "") -> None:
        """Create an account or change its password; `tags` such as "administrator" open the console to it."""
        self._call("PUT", f"users/{_quoted(name)}", {"password": password, "tags": tags})

    def delete_user(self, name: str) -> None:
        """Delete an account; the broker closes its connections."""
        self._delete(f"users/{_quoted(name)}")

    def set_rights(self, vhost: str, user: str, rights: Rights) -> None:
        """Give `user` these rights on `vhost`; topic rights on exchanges not named in them stay."""
        where = f"{_quoted(vhost)}/{_quoted(user)}"
        permissions = {"configure": rights.configure, "write": rights.write, "read": rights.read}
        self._call("PUT", f"permissions/{where}", permissions)
        for exchange, write, read in rights.topics:
            self._call("PUT", f"topic-permissions/{where}", {"exchange": exchange, "write": write, "read": read})

    def queues(self, vhost: str) -> list[Record]:
        """The queues of `vhost`; counts of messages and consumers are up to 5 s old, and absent in a new queue.

        `disable_stats` would make this cheaper, and leave the consumers out.
        """
        answer = self._call("GET", f"queues/{_quoted(vhost)}")
        return [dict(queue) for queue in answer]

    def vhosts(self) -> list[str]:
        """Names of the virtual hosts."""
        return [str(vhost["name"]) for vhost in self._call("GET", "vhosts?columns=name")]

    def overview(self) -> Record:
        """Version, cluster name, listeners and totals of the broker."""
        return dict(self._call("GET", "overview"))

    def alarms(self) -> list[str]:
        """What keeps the broker from taking messages, such as "disk on rabbit@host"; empty if nothing does."""
        kinds = (("mem_alarm", "memory"), ("disk_free_alarm", "disk"))
        nodes = self._call("GET", "nodes?columns=name,mem_alarm,disk_free_alarm")
        return [f"{kind} on {node['name']}" for node in nodes for key, kind in kinds if node.get(key)]

    def waiting_bytes(self, vhost: str) -> dict[str, int]:
        """Bytes of messages in each queue of `vhost`, without the columns that make `queues` dear."""
        queues = self._call("GET", f"queues/{_quoted(vhost)}?columns=name,message_bytes")
        return {str(queue["name"]): int(queue.get("message_bytes", 0)) for queue in queues}

    def attempts(self) -> dict[str, tuple[int, int]]:
        """AMQP logins of each account since the broker started: failed, succeeded.

        Empty unless it tracks them (`track_auth_attempt_source`), as private nodes do.
        """
        found: dict[str, tuple[int, int]] = {}
        for node in self._call("GET", "nodes?columns=name"):
            for row in self._call("GET", f"auth/attempts/{_quoted(node['name'])}/source"):
                if str(row["protocol"]).startswith("amqp"):
                    failed, succeeded = found.get(row["username"], (0, 0))
                    counts = (failed + row["auth_attempts_failed"], succeeded + row["auth_attempts_succeeded"])
                    found[row["username"]] = counts
        return found

    def messages(self, vhost: str, queue: str, *, most: int) -> list[str]:
        """Bodies of the first messages of a queue, oldest first, which stay in it; they count as redelivered."""
        asked = {"count": most, "ackmode": "reject_requeue_true", "encoding": "auto"}
        got = self._call("POST", f"queues/{_quoted(vhost)}/{_quoted(queue)}/get", asked)
        return [str(message["payload"]) for message in got if message["payload_encoding"] == "string"]

    def _delete(self, path: str) -> None:
        self._call("DELETE", path, absent_is_fine=True)

    def _call(self, method: str, path: str, body: Record | None = None, *, absent_is_fine: bool = False) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/api/{path}", data, self._headers, method=method)  # noqa: S310
        try:
            with self._opener.open(request, timeout=TIMEOUT_S) as response:
                answer = response.read()
            return json.loads(answer) if answer else None
        except urllib.error.HTTPError as error:
            with error:
                if error.code == HTTPStatus.NOT_FOUND and absent_is_fine:
                    return None
                raise self._refusal(error, f"{method} {path}") from error
        except (OSError, ValueError) as error:  # URLError is an OSError; ValueError: the answer is not JSON
            reason = getattr(error, "reason", error)
            raise LinkError(
                f"The broker's management API at {self.url} does not answer ({reason}): start it, or enable its "
                "plugin rabbitmq_management."
            ) from error

    def _refusal(self, error: urllib.error.HTTPError, what: str) -> LinkError | LinkRefused:
        if error.code == HTTPStatus.UNAUTHORIZED:
            return LinkRefused(f"The broker at {self.url} refuses user {self._user!r}: check name and password.")
        return LinkError(f"The broker at {self.url} refuses {what}: {_said(error)}.")


def with_login(url: str, user: str, password: str) -> str:
    """The API's address with a login in it, as `console.url` has it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{_quoted(user)}:{_quoted(password)}@{parts.netloc}"


def _quoted(name: str) -> str:
    return quote(name, safe="")


def _said(error: urllib.error.HTTPError) -> str:
    """What the API gave as the reason, else the bare HTTP status."""
    try:
        answer = json.loads(error.read())
        return str(answer["reason"]).strip().rstrip(".")
    except (OSError, ValueError, KeyError, TypeError):
        return f"HTTP {error.code} {error.reason}"
