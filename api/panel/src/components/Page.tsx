import { Title } from "@mantine/core";
import { type ReactNode, useEffect } from "react";

/** A page: its only h1, what can be done on it, its parts. */
export function Page(given: { title: string; note?: ReactNode; actions?: ReactNode; children: ReactNode }) {
  useEffect(() => {
    document.title = `${given.title} · Quarterdeck`;
  }, [given.title]);
  return (
    <div className="page">
      <div className="page-head">
        <Title order={1}>{given.title}</Title>
        {given.note !== undefined && <span className="muted">{given.note}</span>}
        {given.actions !== undefined && <div className="actions">{given.actions}</div>}
      </div>
      {given.children}
    </div>
  );
}

/** A framed part of a page. `flush` for tables; `fill` takes the height that is left. */
export function Panel(given: {
  title: string;
  actions?: ReactNode;
  flush?: boolean;
  fill?: boolean;
  stale?: boolean;
  className?: string;
  children: ReactNode;
}) {
  const names = ["panel", given.fill ? "fill" : "", given.className ?? ""].join(" ");
  return (
    <section className={names} aria-label={given.title}>
      <header>
        <Title order={2}>{given.title}</Title>
        {given.actions !== undefined && <div className="actions">{given.actions}</div>}
      </header>
      <div className={`body${given.flush ? " flush" : ""}${given.stale ? " stale" : ""}`}>{given.children}</div>
    </section>
  );
}
