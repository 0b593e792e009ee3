/** Every page: where it is, what it is called, who may see it. Pages are loaded when they are first opened. */
import {
  IconActivity,
  IconAlertTriangle,
  IconArrowsExchange,
  IconBuildingBank,
  IconChartCandle,
  IconCode,
  IconGauge,
  IconLayoutDashboard,
  IconListDetails,
  IconRobot,
  IconScale,
  IconScript,
  IconServer2,
  IconShieldHalf,
  IconUser,
  IconUsers,
  IconWallet,
} from "@tabler/icons-react";
import { type ComponentType, lazy, type LazyExoticComponent } from "react";
import { matchPath } from "react-router";

export interface PageEntry {
  /** Below `/`; `:name` are parameters. */
  path: string;
  title: string;
  group: "Today" | "Machinery" | "Control" | "You";
  icon: ComponentType<{ size?: number; "aria-hidden"?: boolean }>;
  page: LazyExoticComponent<ComponentType>;
  /** Further paths of the same page: between them it stays as it is, with what is filtered, sorted and chosen in it. */
  more?: string[];
  /** Shown to operators only. */
  operator?: boolean;
}

export const pages: PageEntry[] = [
  { path: "/", title: "Deck", group: "Today", icon: IconLayoutDashboard, page: lazy(() => import("./Deck")) },
  { path: "/algos", title: "Algos", group: "Today", icon: IconRobot, page: lazy(() => import("./Algos")), more: ["/algos/:id"] },
  { path: "/orders", title: "Orders", group: "Today", icon: IconListDetails, page: lazy(() => import("./Orders")), more: ["/orders/:account/:key"] },
  { path: "/positions", title: "Positions", group: "Today", icon: IconWallet, page: lazy(() => import("./Positions")) },
  { path: "/trades", title: "Trades", group: "Today", icon: IconArrowsExchange, page: lazy(() => import("./Trades")) },
  { path: "/chart", title: "Chart", group: "Today", icon: IconChartCandle, page: lazy(() => import("./Chart")), more: ["/chart/:instrument"] },
  { path: "/alerts", title: "Alerts", group: "Today", icon: IconAlertTriangle, page: lazy(() => import("./Alerts")) },
  { path: "/nodes", title: "Nodes", group: "Machinery", icon: IconServer2, page: lazy(() => import("./Nodes")), more: ["/nodes/:id"] },
  { path: "/feeds", title: "Feeds", group: "Machinery", icon: IconActivity, page: lazy(() => import("./Feeds")), more: ["/feeds/:id"] },
  { path: "/strategies", title: "Strategies", group: "Machinery", icon: IconCode, page: lazy(() => import("./Strategies")), more: ["/strategies/:name"] },
  { path: "/accounts", title: "Accounts & brokers", group: "Machinery", icon: IconBuildingBank, page: lazy(() => import("./Accounts")), more: ["/accounts/:id"] },
  { path: "/risk", title: "Risk", group: "Control", icon: IconGauge, page: lazy(() => import("./Risk")) },
  { path: "/reconciliation", title: "Reconciliation", group: "Control", icon: IconScale, page: lazy(() => import("./Reconciliation")) },
  { path: "/audit", title: "Audit", group: "Control", icon: IconScript, page: lazy(() => import("./Audit")), operator: true },
  { path: "/users", title: "Users", group: "Control", icon: IconUsers, page: lazy(() => import("./Users")), more: ["/users/:id"], operator: true },
  { path: "/kill", title: "Kill switch", group: "Control", icon: IconShieldHalf, page: lazy(() => import("./Kill")), more: ["/kill/:id"] },
  { path: "/profile", title: "Profile", group: "You", icon: IconUser, page: lazy(() => import("./Profile")) },
];

/** The page at a path of the browser; undefined where there is none. */
export function pageAt(pathname: string): PageEntry | undefined {
  return pages.find((each) => [each.path, ...(each.more ?? [])].some((path) => matchPath(path, pathname)));
}

/** Where a thing that the search found is shown. */
export function placeOf(kind: string, id: string): string {
  const name = encodeURIComponent(id);
  switch (kind) {
    case "algo": return `/algos/${name}`;
    case "account": return `/accounts/${name}`;
    case "instrument": return `/chart/${name}`;
    // `<account>/<client_order_id>`
    case "order": return `/orders/${id.split("/").map(encodeURIComponent).join("/")}`;
    case "node": return `/nodes/${name}`;
    case "feed": return `/feeds/${name}`;
    case "strategy": return `/strategies/${name}`;
    case "user": return `/users/${name}`;
    default: return "/";
  }
}
