"""How old the figures of the tree of limits are: what a silent session told last is no present use.

Central risk keeps what a session told it last, for what it holds is at risk all the same.  So each level says of which
accounts that is, and as of when; a level that is one account's, of which nothing is known, shows nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.glance import QUIET_NS, Seen
from api.limit_tree import OldTold, TreeNode
from storage.records import AccountRecord
from trading.ids import AccountId, AlgoId, Nanos
from trading.limits import CLUSTER, account_scope, algo_scope, user_scope


def with_age(root: TreeNode, seen: Seen, accounts: Sequence[AccountRecord]) -> TreeNode:
    """The tree with what is old marked; ``accounts`` are those that may be named to who looks at it."""
    used = seen.uses()
    old = {
        each.id: told
        for each in seen.accounts
        # One that was switched off may still hold something.
        if (each.enabled or account_scope(each.id) in used or seen.is_missed(each))
        and (told := _old(each, seen)) is not None
    }
    if not old:
        return root
    named = {each.id for each in accounts}
    by_scope: dict[str, list[OldTold]] = {}
    for account in accounts:
        if account.id in old:
            entry = OldTold(account=account.id, at=old[account.id])
            by_scope.setdefault(user_scope(account.user), []).append(entry)
            by_scope[account_scope(account.id)] = [entry]
    for algo in seen.algos:
        if algo.account in old and algo.account in named:
            by_scope[algo_scope(AlgoId(algo.id))] = by_scope[account_scope(algo.account)]
    by_scope[CLUSTER] = _of_all(old, named)
    return _marked(root, by_scope)


def _old(account: AccountRecord, seen: Seen) -> Nanos | None:
    """As of when the account's figures are, 0 where that is not known; None where they are of now."""
    at = min(seen.told_at(account), seen.risk.at if seen.risk is not None else Nanos(0))
    return at if seen.at - at > QUIET_NS else None


def _of_all(old: Mapping[AccountId, Nanos], named: set[AccountId]) -> list[OldTold]:
    mine = [OldTold(account=id, at=at) for id, at in sorted(old.items()) if id in named]
    others = [at for id, at in old.items() if id not in named]
    # Whose they are is not theirs to know.
    return [*mine, OldTold(account=None, at=min(others))] if others else mine


def _marked(node: TreeNode, by_scope: Mapping[str, list[OldTold]]) -> TreeNode:
    old = by_scope.get(node.scope, [])
    changes: dict[str, Any] = {"old": old, "children": [_marked(each, by_scope) for each in node.children]}
    if not all(each.at for each in old):
        is_known = any(each.at for each in old) or node.scope == CLUSTER
        # What is not known is a part of it, so no share says anything; where it is all of it, no figure does.
        gone: dict[str, Any] = {"use": None} if is_known else {"use": None, "used": None}
        changes["limits"] = [each.model_copy(update=gone) for each in node.limits]
        if not is_known:
            changes["figures"] = None
    return node.model_copy(update=changes)
