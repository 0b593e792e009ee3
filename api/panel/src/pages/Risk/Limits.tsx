/** The tree of limits with their use; edited in place. */
import { Button, Group, Skeleton } from "@mantine/core";
import { IconChevronDown, IconChevronRight, IconPlus } from "@tabler/icons-react";
import { useQueryClient } from "@tanstack/react-query";
import { type ReactNode, useState } from "react";
import { Link } from "react-router";

import { api, expect, type Shape } from "@/api/client";
import { useConfirm } from "@/components/ConfirmAction";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { UseBar } from "@/components/Stat";
import { inWords } from "@/components/Summed";
import { Ago, Money, Time } from "@/components/values";
import { formatDecimal, trimDecimal } from "@/format/decimal";
import { useIsOperator } from "@/session/session";
import { useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";

import { LimitForm } from "./LimitForm";
import "./risk.css";

export type TreeNode = Shape<"TreeNode">;
type LimitUse = Shape<"LimitUse">;

/** So many accounts are named beside a level. */
const OLD_NAMED = 3;

export function useTree() {
  return useView({ path: "risk/tree", queryKey: ["limit-tree"], read: () => expect(api.GET("/v1/risk/tree")) });
}

export function Limits() {
  const query = useTree();
  const isStale = useStale() || query.isError;
  const isOperator = useIsOperator();
  const [adding, setAdding] = useState<{ scope: string; instrument: string; money?: string } | null>(null);
  if (!query.data) {
    return query.error ? <ErrorNote error={query.error} retry={() => void query.refetch()} /> : <Skeleton height={220} />;
  }
  return (
    <>
      <Panel
        title="Limits and their use"
        flush
        stale={isStale}
        actions={
          isOperator ? (
            <Button
              size="compact-sm"
              leftSection={<IconPlus size={13} aria-hidden />}
              onClick={() => {
                setAdding({ scope: "cluster", instrument: "" });
              }}
            >
              Set a limit
            </Button>
          ) : undefined
        }
      >
        <ErrorNote error={query.error} />
        <div className="tree">
          <Level
            node={query.data}
            depth={0}
            onAdd={
              isOperator
                ? (of) => {
                    setAdding({ scope: of.scope, instrument: of.instrument, money: moneyOf(of) });
                  }
                : undefined
            }
          />
        </div>
      </Panel>
      {adding ? (
        <LimitForm
          {...adding}
          onClose={() => {
            setAdding(null);
          }}
        />
      ) : null}
    </>
  );
}

function Level(given: { node: TreeNode; depth: number; onAdd: ((node: TreeNode) => void) | undefined }) {
  const { node } = given;
  const [open, setOpen] = useState(true);
  const Sign = open ? IconChevronDown : IconChevronRight;
  return (
    <section className="tree-level" style={{ marginInlineStart: given.depth ? 18 : 0 }} aria-label={node.title}>
      <Group gap="sm" className="tree-head">
        <button
          type="button"
          className="tree-toggle"
          aria-expanded={open}
          onClick={() => {
            setOpen(!open);
          }}
        >
          <Sign size={14} aria-hidden /> <strong>{node.title}</strong>
        </button>
        {node.figures ? (
          <span className={node.old?.length ? "muted stale" : "muted"}>
            <Figures node={node} figures={node.figures} />
            {node.instrument ? null : ` · ${String(node.figures.open_orders)} orders open`}
          </span>
        ) : null}
        <AsOf old={node.old ?? []} />
        {given.onAdd ? (
          <Button
            size="compact-xs"
            variant="subtle"
            aria-label={`Set a limit of ${node.title}`}
            onClick={() => given.onAdd?.(node)}
          >
            Add
          </Button>
        ) : null}
      </Group>
      {open ? (
        <>
          {node.limits.length ? (
            <table className={node.old?.length ? "limits stale" : "limits"} aria-label={`Limits of ${node.title}`}>
              <thead className="hidden-label">
                <tr>
                  <th scope="col">Limit</th>
                  <th scope="col">Used</th>
                  <th scope="col">Allowed</th>
                  <th scope="col">Use</th>
                  <th scope="col">Change</th>
                </tr>
              </thead>
              <tbody>
                {node.limits.map((limit) => (
                  <Limit key={limit.kind} node={node} limit={limit} mayEdit={given.onAdd !== undefined} />
                ))}
              </tbody>
            </table>
          ) : null}
          {node.children.map((child) => (
            <Level key={`${child.scope} ${child.instrument}`} node={child} depth={given.depth + 1} onAdd={given.onAdd} />
          ))}
        </>
      ) : null}
    </section>
  );
}

/** That figures of a level are not of now: of which accounts, and as of when. */
function AsOf({ old }: { old: Shape<"OldTold">[] }) {
  if (!old.length) return null;
  return (
    <span className="tree-old">
      Old:{" "}
      {old.slice(0, OLD_NAMED).map((each, place) => (
        <span key={each.account ?? ""}>
          {place ? ", " : ""}
          {each.account ?? "others"}{" "}
          {each.at ? (
            <>
              as of <Time at={each.at} /> (<Ago at={each.at} />)
            </>
          ) : (
            "not known"
          )}
        </span>
      ))}
      {old.length > OLD_NAMED ? `, and ${String(old.length - OLD_NAMED)} more` : null}
    </span>
  );
}

function Figures({ node, figures }: { node: TreeNode; figures: NonNullable<TreeNode["figures"]> }) {
  if (node.currencies.length > 1) return <>amounts in {inWords(node.currencies)}, which are not added up</>;
  const { currency } = node;
  return (
    <>
      gross <Money value={figures.gross} currency={currency} /> · net <Money value={figures.net} currency={currency} /> · at risk{" "}
      <Money value={figures.money_at_risk} currency={currency} />
      {node.instrument ? null : (
        <>
          {" "}
          · today <Money value={figures.pnl_today} currency={currency} signed />
        </>
      )}
    </>
  );
}

function Limit(given: { node: TreeNode; limit: LimitUse; mayEdit: boolean }) {
  const { node, limit } = given;
  const [editing, setEditing] = useState(false);
  const [dialog, confirm] = useConfirm();
  const client = useQueryClient();
  const where = { scope: node.scope, kind: limit.kind, instrument: node.instrument };
  const lift = (
    <Button
      size="compact-xs"
      variant="subtle"
      c="var(--qd-bad)"
      aria-label={`Lift ${limit.kind} of ${node.title}`}
      onClick={() => {
        confirm({
          title: `Lift ${limit.kind.replaceAll("_", " ")} of ${node.title}`,
          children: "The limit no longer holds; those above it still do.",
          verb: "Lift the limit",
          danger: true,
          act: async () => {
            await expect(api.DELETE("/v1/risk/limits", { params: { query: { ...where, seen: limit.value } } }));
            await client.invalidateQueries({ queryKey: ["limit-tree"] });
          },
        });
      }}
    >
      Lift
    </Button>
  );
  return (
    <tr>
      <th scope="row">
        {limit.kind.replaceAll("_", " ")} <span className="muted">({limit.unit === "money" ? moneyOf(node) : limit.unit})</span>
        {dialog}
      </th>
      <td className="number">{limit.used == null ? "–" : <Amount value={limit.used} node={node} unit={limit.unit} />}</td>
      <td className="number">
        <Amount value={limit.value} node={node} unit={limit.unit} />
      </td>
      <td style={{ width: 170 }}>
        <UseBar use={limit.use} used={limit.used} limit={limit.value} isKnown={node.figures !== null} label={`${limit.kind} of ${node.title}`} />
      </td>
      <td>
        {given.mayEdit && limit.kind !== "paused" ? (
          <Group gap={4} wrap="nowrap">
            <Button
              size="compact-xs"
              variant="default"
              aria-label={`Change ${limit.kind} of ${node.title}`}
              onClick={() => {
                setEditing(true);
              }}
            >
              Change
            </Button>
            {limit.kind === "halted" && !node.instrument ? <UnlessKilled scope={node.scope}>{lift}</UnlessKilled> : lift}
          </Group>
        ) : null}
        {editing ? (
          <LimitForm
            {...where}
            money={moneyOf(node)}
            value={trimDecimal(limit.value)}
            onClose={() => {
              setEditing(false);
            }}
          />
        ) : null}
      </td>
    </tr>
  );
}

/** How a halt is lifted, or the way to the kill that holds it: while that is in force the server refuses. */
function UnlessKilled(given: { scope: string; children: ReactNode }) {
  const kills = useView({ path: "risk/kills", queryKey: ["kills"], read: () => expect(api.GET("/v1/risk/kills")) });
  const kill = kills.data?.find((each) => each.scope === given.scope && each.lifted_at === null);
  return kill ? <Link to={`/kill/${kill.id}`}>held by a kill</Link> : given.children;
}

function Amount(given: { value: string; node: TreeNode; unit: string }) {
  const shown = formatDecimal(trimDecimal(given.value));
  return given.unit === "money" && given.node.currency ? (
    <>
      {shown} <span className="muted">{given.node.currency}</span>
    </>
  ) : (
    shown
  );
}

/** What a limit of money is in; of a level with several currencies it is held against amounts as they are. */
function moneyOf(node: TreeNode): string {
  if (node.currencies.length > 1) return `money: ${node.currencies.join(" and ")} added up as they are`;
  return node.currency || "money";
}
