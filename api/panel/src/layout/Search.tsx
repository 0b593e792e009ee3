/** `/` searches everything, ⌘K or Ctrl-K commands: both are one palette. */
import { Spotlight, spotlight, type SpotlightActionData, type SpotlightActionGroupData } from "@mantine/spotlight";
import { useDebouncedValue } from "@mantine/hooks";
import { IconMoon, IconSearch, IconShieldHalf } from "@tabler/icons-react";
import { useQuery } from "@tanstack/react-query";
import { UnstyledButton, useMantineColorScheme } from "@mantine/core";
import { useState } from "react";
import { useNavigate } from "react-router";

import { api, expect, wordsOf } from "@/api/client";
import { pages, placeOf } from "@/pages";
import { useMay } from "@/session/rights";
import { useIsOperator } from "@/session/session";

export function SearchButton() {
  return (
    <UnstyledButton
      className="search"
      onClick={() => {
        spotlight.open();
      }}
      style={{
        display: "flex", alignItems: "center", gap: 7, height: 28, padding: "0 9px", borderRadius: 5, minWidth: 34,
        border: "1px solid var(--qd-line)", background: "var(--qd-raised)", color: "var(--qd-muted)", fontSize: 12,
      }}
    >
      <IconSearch size={14} aria-hidden />
      <span className="wide-only ellipsis">Search or command</span>
      <span className="hidden-label">Search or command</span>
      <kbd className="wide-only mono" style={{ marginLeft: "auto" }} aria-hidden>
        /
      </kbd>
    </UnstyledButton>
  );
}

export function Palette() {
  const [query, setQuery] = useState("");
  const [asked] = useDebouncedValue(query.trim(), 180);
  const navigate = useNavigate();
  const operator = useIsOperator();
  const mayTrade = useMay("trade");
  const mayRun = useMay("algos");
  const { toggleColorScheme } = useMantineColorScheme();
  const { data, error, isFetching, refetch } = useQuery({
    queryKey: ["search", asked],
    queryFn: () => expect(api.GET("/v1/search", { params: { query: { q: asked, limit: 12 } } })),
    enabled: asked !== "",
    retry: false,
  });
  const wanted = query.trim().toLowerCase();
  // What is found is of the text that stands there, and not of the one before.
  const isAsked = asked !== "" && asked === query.trim();
  const fits = (action: SpotlightActionData) => !wanted || (action.label ?? "").toLowerCase().includes(wanted);
  const places: SpotlightActionData[] = pages
    .filter((each) => !each.operator || operator)
    .map((each) => ({
      id: each.path,
      label: each.title,
      leftSection: <each.icon size={17} aria-hidden />,
      onClick: () => void navigate(each.path),
    }));
  const commands: SpotlightActionData[] = [
    ...(mayTrade ? [{ id: "new-order", label: "Place an order", onClick: () => void navigate("/orders?ticket=new") }] : []),
    ...(mayRun ? [{ id: "new-algo", label: "Add an algo", onClick: () => void navigate("/algos?new=1") }] : []),
    {
      id: "throw", label: "Stop trading: kill switch", leftSection: <IconShieldHalf size={17} aria-hidden />,
      onClick: () => void navigate("/kill"),
    },
    { id: "theme", label: "Change between dark and light", leftSection: <IconMoon size={17} aria-hidden />, onClick: toggleColorScheme },
  ];
  const found: SpotlightActionData[] = (isAsked ? (data?.items ?? []) : []).map((each) => ({
    id: `${each.kind} ${each.id}`,
    label: each.title || each.id,
    description: `${each.kind}${each.detail ? ` · ${each.detail}` : ""}`,
    onClick: () => void navigate(placeOf(each.kind, each.id)),
  }));
  const failed: SpotlightActionData = {
    id: "failed", label: "The search failed: try again", description: wordsOf(error), closeSpotlightOnTrigger: false,
    onClick: () => void refetch(),
  };
  const groups: SpotlightActionGroupData[] = [
    { group: "Found", actions: isAsked && error && !isFetching ? [failed] : found },
    { group: "Pages", actions: places.filter(fits) },
    { group: "Commands", actions: commands.filter(fits) },
  ].filter((each) => each.actions.length > 0);
  return (
    <Spotlight
      actions={groups}
      query={query}
      onQueryChange={setQuery}
      // The server has searched; its words need not be in the title.
      filter={(_, all) => all}
      shortcut={["mod + K", "/"]}
      nothingFound={isAsked && !isFetching ? "Nothing of that name" : "Searching…"}
      limit={30}
      overlayProps={{ blur: 0, backgroundOpacity: 0.6 }}
      scrollable
      maxHeight={440}
      searchProps={{ leftSection: <IconSearch size={17} aria-hidden />, placeholder: "Algo, order, instrument, account, page…", "aria-label": "Search or command" }}
    />
  );
}
