/** What would be lost if every protective stop were hit, algo by instrument. */
import { Alert, Skeleton } from "@mantine/core";
import { useMemo } from "react";
import { Link } from "react-router";

import { api, expect, type Shape } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { Panel } from "@/components/Page";
import { inWords } from "@/components/Summed";
import { Ago, Money, Time } from "@/components/values";
import { addDecimals } from "@/format/decimal";
import { useStale } from "@/stream/hooks";
import { useView } from "@/stream/views";

import "./risk.css";

type Cell = Shape<"HeatCell">;
type Total = Shape<"HeatTotal">;

/** The sum of each currency: several have none together. */
export function byCurrency(cells: Cell[]): Total[] {
  const found = new Map<string, string[]>();
  for (const { currency, at_risk } of cells) found.set(currency, [...(found.get(currency) ?? []), at_risk]);
  return [...found].sort().map(([currency, parts]) => ({ currency, at_risk: addDecimals(...parts) }));
}

function Sums({ of }: { of: Total[] }) {
  return of.map(({ currency, at_risk }) => (
    <div key={currency}>
      <Money value={at_risk} currency={currency} />
    </div>
  ));
}

/** Of five steps, how hot a share of the whole is. */
export function heatOf(share: number): number {
  if (share <= 0) return 0;
  return Math.min(5, 1 + Math.floor(share * 10));
}

export function Heat() {
  const query = useView({ path: "risk/heat", queryKey: ["heat"], read: () => expect(api.GET("/v1/risk/heat")) });
  const isStale = useStale() || query.isError;
  const heat = query.data;
  const cells = useMemo(
    () => new Map((heat?.cells ?? []).map((cell) => [`${cell.algo}\n${cell.instrument}`, cell])),
    [heat],
  );
  if (!heat) return query.error ? <ErrorNote error={query.error} retry={() => void query.refetch()} /> : <Skeleton height={180} />;
  const mixed = heat.currencies.length > 1;
  const sumsOf = (match: (cell: Cell) => boolean) => byCurrency(heat.cells.filter(match));
  return (
    <Panel title="Money at risk" flush stale={isStale} actions={<Ago at={heat.at} />}>
      <ErrorNote error={query.error} />
      {heat.old.length ? (
        <Alert color="yellow" variant="light" p="xs" m="xs" title="Not all of it is new" role="status">
          {heat.old.map((each, place) => (
            <span key={each.account}>
              {place ? ", " : ""}
              {each.account}: {each.at ? <>as of <Time at={each.at} /></> : "nothing is known"}
            </span>
          ))}
        </Alert>
      ) : null}
      {heat.cells.length === 0 ? (
        <p className="grid-note">
          <strong>Nothing is at risk</strong>No algo holds anything or has an entry open.
        </p>
      ) : (
        // Scrolled by the keyboard too, so it must take the focus.
        // eslint-disable-next-line jsx-a11y/no-noninteractive-tabindex
        <div className="heat-scroll" tabIndex={0} role="region" aria-label="Money at risk, algo by instrument">
          <table className="heat">
            <caption className="hidden-label">Money at risk in {inWords(heat.currencies)}, algo by instrument; the darker, the more{mixed ? " of its currency" : ""}</caption>
            <thead>
              <tr>
                <th scope="col">Algo</th>
                {heat.instruments.map((instrument) => (
                  <th key={instrument} scope="col">
                    <Link to={`/chart/${encodeURIComponent(instrument)}`}>{instrument}</Link>
                  </th>
                ))}
                <th scope="col">All</th>
              </tr>
            </thead>
            <tbody>
              {heat.algos.map((algo) => (
                <tr key={algo}>
                  <th scope="row">{algo ? <Link to={`/algos/${encodeURIComponent(algo)}`}>{algo}</Link> : "by hand"}</th>
                  {heat.instruments.map((instrument) => {
                    const cell = cells.get(`${algo}\n${instrument}`);
                    return (
                      <td key={instrument} data-heat={heatOf(cell?.share ?? 0)} className="number" title={cell ? `${(cell.share * 100).toFixed(1)} % of all${mixed ? ` in ${cell.currency}` : ""}` : undefined}>
                        {cell ? <Money value={cell.at_risk} currency={mixed ? cell.currency : undefined} /> : ""}
                      </td>
                    );
                  })}
                  <td className="number">
                    <strong>
                      <Sums of={sumsOf((cell) => cell.algo === algo)} />
                    </strong>
                  </td>
                </tr>
              ))}
            </tbody>
            <tfoot>
              <tr>
                <th scope="row">All</th>
                {heat.instruments.map((instrument) => (
                  <td key={instrument} className="number">
                    <Sums of={sumsOf((cell) => cell.instrument === instrument)} />
                  </td>
                ))}
                <td className="number">
                  <strong>
                    <Sums of={heat.totals} />
                  </strong>
                </td>
              </tr>
            </tfoot>
          </table>
        </div>
      )}
    </Panel>
  );
}
