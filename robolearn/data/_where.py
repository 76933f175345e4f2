"""The small language of `--where`: comparisons of the facts of episodes, joined by and, or, not. Nothing is executed.

label == success and steps > 50          text on the right needs no quotes
operator in (anna, ben) or index < 10    index: place in the set; steps: length of the episode
success == unknown                       what nobody set: "", -1 or NaN; it equals only itself and has no order
filter_hard and not flagged              a fact alone: 1 or more, or any text
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robolearn.errors import BadInput, nearest

_LONGEST = 2000  # characters
_OPERATORS: Mapping[type[ast.cmpop], tuple[str, Callable[[Any, Any], Any]]] = {
    ast.Eq: ("==", operator.eq),
    ast.NotEq: ("!=", operator.ne),
    ast.Lt: ("<", operator.lt),
    ast.LtE: ("<=", operator.le),
    ast.Gt: (">", operator.gt),
    ast.GtE: (">=", operator.ge),
}
_SWAPPED = {"<": ast.Gt, "<=": ast.GtE, ">": ast.Lt, ">=": ast.LtE, "==": ast.Eq, "!=": ast.NotEq}
_WANT = "want comparisons such as 'label == success and steps > 50'"


def evaluate(text: str, columns: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns (episodes,) bool, where the condition `text` holds; columns: one value an episode, by the name of the fact."""
    try:
        if len(text) > _LONGEST:
            raise BadInput(f"where: {_WANT} of at most {_LONGEST} characters, got {len(text)}")
        tree = ast.parse(text.strip(), mode="eval").body
        return _Condition(text, columns).holds(tree)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise BadInput(f"where '{text[:80]}': {_WANT}; this does not read as one ({type(error).__name__})") from None


@dataclass(frozen=True)
class _Condition:
    """One condition over the columns of a set."""

    text: str
    columns: Mapping[str, np.ndarray]

    def holds(self, node: ast.expr) -> np.ndarray:
        """Returns where a part of the condition is true."""
        if isinstance(node, ast.BoolOp):
            parts = [self.holds(value) for value in node.values]
            return np.logical_and.reduce(parts) if isinstance(node.op, ast.And) else np.logical_or.reduce(parts)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            return ~self.holds(node.operand)
        if isinstance(node, ast.Name):
            column = self.column(node.id)
            return column != "" if column.dtype.kind == "U" else column > 0
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            pairs = zip(sides, node.ops, sides[1:], strict=False)
            return np.logical_and.reduce([self.compare(left, op, right) for left, op, right in pairs])
        raise BadInput(f"where '{self.text}': {_WANT}, got '{ast.unparse(node)}'")

    def compare(self, left: ast.expr, op: ast.cmpop, right: ast.expr) -> np.ndarray:
        """Returns where one comparison is true: a fact on one side, a value on the other."""
        if isinstance(op, (ast.In, ast.NotIn)):
            if not isinstance(right, (ast.Tuple, ast.List, ast.Set)):
                raise BadInput(f"where '{self.text}': want a list after 'in', such as (a, b), got '{ast.unparse(right)}'")
            found = [self.compare(left, ast.Eq(), value) for value in right.elts]
            among = np.logical_or.reduce(found) if found else np.zeros(len(self.columns["index"]), bool)
            return among if isinstance(op, ast.In) else ~among
        if type(op) not in _OPERATORS:
            raise BadInput(f"where '{self.text}': {_WANT}, got '{ast.unparse(ast.Compare(left, [op], [right]))}'")
        symbol, function = _OPERATORS[type(op)]
        if not isinstance(left, ast.Name) or (left.id == "unknown" and isinstance(right, ast.Name)):
            if not isinstance(right, ast.Name):
                raise BadInput(
                    f"where '{self.text}': want a fact on one side, got '{ast.unparse(left)} {symbol} {ast.unparse(right)}'"
                )
            return self.compare(right, _SWAPPED[symbol](), left)
        column = self.column(left.id)
        value = self.value(right, column, left.id)
        if value is None:
            return self.unknown(column) if symbol == "==" else ~self.unknown(column)
        if symbol in ("==", "!="):
            return function(column, value)
        return function(column, value) & ~self.unknown(column)

    def value(self, node: ast.expr, column: np.ndarray, name: str) -> Any:
        """Returns the number or text to compare a column with; None for `unknown`."""
        if isinstance(node, ast.Name) and node.id == "unknown":
            return None
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
            number = self.value(node.operand, column, name)
            if not isinstance(number, str):
                return -number
        text = column.dtype.kind == "U"
        if isinstance(node, ast.Name) and node.id.lower() in ("true", "false") and not text:
            return int(node.id.lower() == "true")
        found = node.id if isinstance(node, ast.Name) else node.value if isinstance(node, ast.Constant) else None
        if text and isinstance(found, (str, int, float)):
            return str(found)
        if isinstance(found, (int, float)):
            return found
        kind = "text" if text else "a number"
        raise BadInput(f"where '{self.text}': '{name}' is {kind}, so {kind} must stand beside it, got '{ast.unparse(node)}'")

    def column(self, name: str) -> np.ndarray:
        """Returns one value an episode; BadInput with the nearest name where there is no such fact."""
        if name not in self.columns:
            raise BadInput(f"where '{self.text}': no fact '{name}'{nearest(name, sorted(self.columns))}")
        column = self.columns[name]
        if column.ndim != 1:
            raise BadInput(f"where '{self.text}': '{name}' has {column[0].size} values an episode, only single ones compare")
        return column

    def unknown(self, column: np.ndarray) -> np.ndarray:
        """Returns where nobody set a value."""
        if column.dtype.kind == "U":
            return column == ""
        return np.isnan(column) if column.dtype.kind == "f" else column == -1
