"""Registry of rules: finds the rule of a node by its operator.

If no rule fits a node, the node counts as reading every channel. This assumption never removes too much.
"""

from __future__ import annotations

import onnx

from lmconv.compaction.rules import elementwise, layers, selection, shapes, spatial
from lmconv.compaction.rules.rule import NoRule, Rule, RuleFunction
from lmconv.compaction.trace import GraphTrace
from lmconv.graph.index import reads

RULES: dict[str, RuleFunction] = {
    **elementwise.RULES,
    **spatial.RULES,
    **shapes.RULES,
    **selection.RULES,
    **layers.RULES,
}
"""Rule function by standard ONNX operator."""


def rule_for(node: onnx.NodeProto, trace: GraphTrace) -> Rule:
    """Returns the rule of a node; if no rule fits, a rule that keeps all channels and holds the reason."""
    try:
        if node.domain not in ("", "ai.onnx") or node.op_type not in RULES:
            raise NoRule(f"no rule for {node.op_type}")
        rule = RULES[node.op_type](node, trace)
        covered = {*rule.broadcast_inputs, *(link.input for link in rule.links)}
        if rule.weighted_sum:
            covered.add(rule.weighted_sum.input)
        if node.op_type != "Shape" and any(name not in trace.constants for name in set(reads(node)) - covered):
            raise NoRule("what it is told is computed")
        return rule
    except NoRule as reason:
        return Rule(node=node, keep_all_reason=f"{node.op_type}: {reason}")
