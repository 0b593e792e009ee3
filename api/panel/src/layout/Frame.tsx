import { ActionIcon, Alert, Button, Indicator, Menu, Skeleton, Tooltip, useMantineColorScheme } from "@mantine/core";
import { useLocalStorage } from "@mantine/hooks";
import {
  IconBell, IconLayoutSidebar, IconLogout, IconMenu2, IconMoon, IconShieldHalf, IconSun, IconUser,
} from "@tabler/icons-react";
import { useQuery, useQueryClient } from "@tanstack/react-query";
import { type RefObject, Suspense, useEffect, useRef, useState } from "react";
import { Link, NavLink, Outlet, useLocation, useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import { pageAt, pages } from "@/pages";
import { forgetSession, useIsOperator, useMe } from "@/session/session";
import { useChanges } from "@/stream/hooks";

import { Boundary } from "./Boundary";
import { Clock } from "./Clock";
import { LinkSign } from "./Link";
import { Palette, SearchButton } from "./Search";
import { UncertainNote } from "./Uncertain";

const GROUPS = ["Today", "Machinery", "Control", "You"] as const;

/** What stands around every page: bar, navigation, state of the connection, search. */
export function Frame() {
  const [narrow, setNarrow] = useLocalStorage({ key: "qd-narrow", defaultValue: false, getInitialValueInEffect: false });
  const [open, setOpen] = useState(false);
  const { pathname } = useLocation();
  const page = pageAt(pathname)?.path ?? pathname;
  const content = useFocusAfter(page, pathname);
  useEffect(() => {
    setOpen(false);
  }, [pathname]);
  return (
    <div className="frame" data-narrow={narrow}>
      <a className="skip" href="#content">
        To the page
      </a>
      <header className="bar">
        <ActionIcon
          className="phone-only"
          aria-label="Navigation"
          aria-expanded={open}
          onClick={() => {
            setOpen(!open);
          }}
        >
          <IconMenu2 size={20} aria-hidden />
        </ActionIcon>
        <Link to="/" className="brand" aria-label="Quarterdeck: to the deck">
          <img src="/favicon.svg" alt="" />
          <span className="wide-only">Quarterdeck</span>
        </Link>
        <SearchButton />
        <div style={{ marginLeft: "auto" }} />
        <Clock />
        <LinkSign />
        <Bell />
        <Button component={Link} to="/kill" color="red.9" style={{ flex: "none" }} leftSection={<IconShieldHalf size={15} aria-hidden />}>
          <span className="wide-only">Kill switch</span>
          <span className="phone-only">Kill</span>
        </Button>
        <UserMenu />
      </header>
      <nav className="side" aria-label="Pages" data-open={open}>
        <Side />
        <ActionIcon
          className="wide-only"
          mt={12}
          ml={4}
          aria-label={narrow ? "Widen the navigation" : "Narrow the navigation"}
          onClick={() => {
            setNarrow(!narrow);
          }}
        >
          <IconLayoutSidebar size={17} aria-hidden />
        </ActionIcon>
      </nav>
      <main className="content" id="content" ref={content} tabIndex={-1} style={{ outline: "none" }}>
        <UncertainNote />
        <RecoveredNote />
        <Boundary key={page} at={pathname}>
          <Suspense fallback={<Opening />}>
            <Outlet />
          </Suspense>
        </Boundary>
      </main>
      <Palette />
    </div>
  );
}

/**
 * The part of the frame where pages stand, focused after a change of page: the reading goes on there. Within a page the
 * focus stays where it is; where it is gone, with a drawer that was closed, it goes back to where it was on the page.
 */
function useFocusAfter(page: string, pathname: string): RefObject<HTMLElement | null> {
  const content = useRef<HTMLElement>(null);
  const before = useRef({ page, pathname });
  const last = useRef<HTMLElement | null>(null);
  useEffect(() => {
    const place = content.current;
    const note = ({ target }: FocusEvent) => {
      if (target !== place && target instanceof HTMLElement && !target.closest("[role=dialog]")) last.current = target;
    };
    place?.addEventListener("focusin", note);
    return () => place?.removeEventListener("focusin", note);
  }, []);
  useEffect(() => {
    const was = before.current;
    before.current = { page, pathname };
    if (was.pathname === pathname) return;
    const isOther = was.page !== page;
    if (isOther || document.activeElement === document.body) {
      const back = isOther || !last.current?.isConnected ? content.current : last.current;
      back?.focus({ preventScroll: true });
    }
  }, [page, pathname]);
  return content;
}

/** Who lost the phone is led to where another is enrolled. */
function RecoveredNote() {
  const { recovered } = useMe();
  const { pathname } = useLocation();
  if (!recovered || pathname === "/profile") return null;
  return (
    <Alert color="yellow" title="You signed in with a recovery code" mb="sm">
      Kill switch, limits and keys stay shut until you have enrolled another authenticator:{" "}
      <Link to="/profile">do it now</Link>.
    </Alert>
  );
}

function Side() {
  const operator = useIsOperator();
  const seen = pages.filter((each) => !each.operator || operator);
  return GROUPS.map((group) => (
    <div key={group}>
      <div className="group">{group}</div>
      {seen
        .filter((each) => each.group === group)
        .map((each) => (
          <NavLink key={each.path} to={each.path} end={each.path === "/"} title={each.title}>
            <each.icon size={16} aria-hidden />
            <span>{each.title}</span>
          </NavLink>
        ))}
    </div>
  ));
}

function Bell() {
  const client = useQueryClient();
  const { data } = useQuery({
    queryKey: ["alerts", "open-count"],
    queryFn: () => expect(api.GET("/v1/alerts", { params: { query: { open: true, limit: 100 } } })),
    refetchInterval: 60_000,
    retry: 1,
  });
  useChanges("alerts", () => {
    void client.invalidateQueries({ queryKey: ["alerts", "open-count"] });
  });
  const count = data?.items.length ?? 0;
  const words = count === 0 ? "No open alerts" : `${String(count)}${data?.next ? " or more" : ""} open alerts`;
  return (
    <Tooltip label={words}>
      <Indicator disabled={count === 0} label={count > 99 ? "99+" : count} size={15} color="red.9" offset={4}>
        <ActionIcon component={Link} to="/alerts" aria-label={words} size="lg">
          <IconBell size={17} aria-hidden />
        </ActionIcon>
      </Indicator>
    </Tooltip>
  );
}

function UserMenu() {
  const me = useMe();
  const client = useQueryClient();
  const navigate = useNavigate();
  const { colorScheme, toggleColorScheme } = useMantineColorScheme();
  const leave = async () => {
    try {
      await expect(api.POST("/v1/auth/logout"));
    } finally {
      forgetSession(client);
    }
  };
  return (
    <Menu position="bottom-end" shadow="md" width={210}>
      <Menu.Target>
        <Button variant="default" leftSection={<IconUser size={14} aria-hidden />} aria-label={`Menu of ${me.user}`}>
          <span className="wide-only">{me.user}</span>
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        <Menu.Label>
          {me.user} · {me.roles.join(", ")}
        </Menu.Label>
        <Menu.Item leftSection={<IconUser size={15} aria-hidden />} onClick={() => void navigate("/profile")}>
          Profile
        </Menu.Item>
        <Menu.Item
          leftSection={colorScheme === "dark" ? <IconSun size={15} aria-hidden /> : <IconMoon size={15} aria-hidden />}
          onClick={toggleColorScheme}
        >
          {colorScheme === "dark" ? "Light theme" : "Dark theme"}
        </Menu.Item>
        <Menu.Divider />
        <Menu.Item leftSection={<IconLogout size={15} aria-hidden />} onClick={() => void leave()}>
          Sign out
        </Menu.Item>
      </Menu.Dropdown>
    </Menu>
  );
}

function Opening() {
  return (
    <div className="page" role="status">
      <span className="hidden-label">Loading the page</span>
      <Skeleton height={22} width={160} />
      <Skeleton height={72} />
      <Skeleton height={320} />
    </div>
  );
}
