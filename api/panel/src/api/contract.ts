/** Routes that the server's document does not have yet; each goes as soon as `npm run types` brings it. */

type Json<T> = { headers: Record<string, unknown>; content: { "application/json": T } };
type Empty = { headers: Record<string, unknown>; content?: never };
interface Parameters<Q, P> {
  query?: Q;
  header?: never;
  path: P;
  cookie?: never;
}
type Operation<Q, P, B, R> = {
  parameters: [P] extends [undefined]
    ? { query?: Q; header?: never; path?: never; cookie?: never }
    : Parameters<Q, P>;
  responses: { 200: [R] extends [void] ? Empty : Json<R> };
} & ([B] extends [undefined] ? { requestBody?: never } : { requestBody: { content: { "application/json": B } } });
type Get<R, Q = undefined, P = undefined> = { get: Operation<Q, P, undefined, R> };
type Post<R, B = undefined, P = undefined> = { post: Operation<undefined, P, B, R> };
type Put<R, B, P> = { put: Operation<undefined, P, B, R> };
type Delete<P = undefined> = { delete: Operation<undefined, P, undefined, void> };

export type Step = "code" | "password" | "enrol" | "done";
export type Role = "operator" | "quant" | "trader" | "viewer";

export interface SessionShown {
  user: string;
  roles: string[];
  rights: string[];
  step: Step;
  totp: boolean;
  fresh_until: string | null;
  idle_ends_at: string;
  ends_at: string;
  id: string;
}

export interface SessionLine {
  id: string;
  user: string;
  created_at: string;
  last_seen_at: string;
  address: string;
  agent: string;
  current: boolean;
}

export interface GrantShown {
  account: string;
  user: string;
  level: "view" | "trade";
}

export interface DeckAccount {
  account: string;
  user: string;
  connector: string;
  enabled: boolean;
  state: string;
  detail: string;
  currency: string;
  equity: string | null;
  pnl_today: string | null;
  gross: string | null;
  gross_limit: string | null;
  gross_use: number | null;
}

export interface DeckFeed {
  feed: string;
  provider: string;
  enabled: boolean;
  state: string;
  instruments: number;
  live: number;
  stale: number;
  workers_wanted: number;
  workers: number;
}

export interface DeckShown {
  at: string;
  currency: string;
  pnl_today: string | null;
  gross: string | null;
  net: string | null;
  gross_limit: string | null;
  gross_use: number | null;
  accounts: DeckAccount[];
  algos: { running: number; wanted: number; by_state: Record<string, number> };
  feeds: DeckFeed[];
  nodes: { node: string; state: string; cpu: number | null; memory: number | null; algos: number }[];
  open_orders: number;
  breaks: number;
  alerts: number;
  kills: { id: string; scope: string; reason: string; at: string }[];
}

export type Severity = "info" | "warning" | "critical";

export interface AlertShown {
  id: string;
  kind: string;
  severity: Severity;
  user: string;
  account: string | null;
  algo: string | null;
  subject: string;
  text: string;
  at: string;
  acknowledged_at: string | null;
  acknowledged_by: string | null;
}

export interface EquityPoint {
  at: string;
  pnl: string;
  equity?: string | null;
}

export interface FoundThing {
  kind: "algo" | "account" | "instrument" | "order" | "node" | "feed" | "strategy" | "user";
  id: string;
  title: string;
  detail: string;
}

export interface Flattening {
  cancelled: number | string[];
  closing: { client_order_id: string; instrument: string; state: string; quantity?: string }[];
  refused: { code: string; detail: string }[];
}

interface Listed<T> {
  items: T[];
  next?: string | null;
}

interface Span {
  since?: string;
  until?: string;
  points?: number;
}

export interface ContractPaths {
  "/v1/auth/login": Post<{ step: Step }, { user: string; password: string }>;
  "/v1/auth/code": Post<{ step: Step }, { code: string } | { recovery_code: string }>;
  "/v1/auth/password": Post<{ step: Step }, { current: string; new: string }>;
  "/v1/auth/totp": Post<{ secret: string; uri: string; qr_svg: string }>;
  "/v1/auth/totp/confirm": Post<{ step: Step; recovery_codes: string[] }, { code: string }>;
  "/v1/auth/recovery-codes": Post<{ recovery_codes: string[] }>;
  "/v1/auth/fresh": Post<{ fresh_until: string }, { code: string }>;
  "/v1/auth/logout": Post<void>;
  "/v1/auth/session": Get<SessionShown>;
  "/v1/sessions": Get<Listed<SessionLine>, { user?: string; limit?: number; cursor?: string | null }> & Delete;
  "/v1/sessions/{id}": Delete<{ id: string }>;
  "/v1/users/{id}/reset": Post<{ one_time_password: string | null }, undefined, { id: string }>;
  "/v1/users/{id}/unlock": Post<void, undefined, { id: string }>;
  "/v1/grants": Get<Listed<GrantShown>, { account?: string; user?: string; limit?: number }>;
  "/v1/grants/{account}/{user}": Put<GrantShown, { level: "view" | "trade" }, { account: string; user: string }> &
    Delete<{ account: string; user: string }>;
  "/v1/deck": Get<DeckShown>;
  "/v1/algos/{id}/equity": Get<{ items: EquityPoint[]; currency: string }, Span, { id: string }>;
  "/v1/accounts/{id}/equity": Get<{ items: EquityPoint[]; currency: string }, Span, { id: string }>;
  "/v1/accounts/{id}/flatten": Post<Flattening, { reason: string }, { id: string }>;
  "/v1/alerts": Get<
    Listed<AlertShown>,
    { open?: boolean; kind?: string; limit?: number; cursor?: string | null }
  >;
  "/v1/alerts/{id}/acknowledge": Post<AlertShown, undefined, { id: string }>;
  "/v1/search": Get<{ items: FoundThing[] }, { q: string; limit?: number }>;
}
