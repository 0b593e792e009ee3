import { ActionIcon, Button, Checkbox, Group, Popover, Stack, TextInput, Tooltip } from "@mantine/core";
import { useLocalStorage } from "@mantine/hooks";
import { IconChevronDown, IconChevronUp, IconColumns3, IconDownload, IconFilter, IconSearch } from "@tabler/icons-react";
import {
  type ColumnDef,
  type ColumnFiltersState,
  getCoreRowModel,
  getFilteredRowModel,
  getSortedRowModel,
  type SortingState,
  useReactTable,
} from "@tanstack/react-table";
import { useVirtualizer } from "@tanstack/react-virtual";
import { type KeyboardEvent, type ReactNode, type RefObject, useCallback, useId, useImperativeHandle, useMemo, useRef, useState } from "react";

import { csvText, download } from "@/format/csv";

import { type CellValue, type Column, filterOf, isNumeric, orderOf } from "./columns";
import { ErrorNote } from "./ErrorNote";
import { type Remote, useTold } from "./remote";
import { Line, Loading, Spacer } from "./TableRows";
import { useAct } from "./useAct";

export type { Column } from "./columns";

const ROW = 27;

export interface DataTableProps<Row> {
  /** Names its choices in the browser's store and its CSV file; unique in the panel. */
  name: string;
  /** What the table holds, for those who cannot see it. */
  label: string;
  rows: readonly Row[];
  /** Keep the array the same between renders (`useMemo` or a constant). */
  columns: readonly Column<Row>[];
  rowId: (row: Row) => string;
  /** Sorted by this at first: a column's id, with `-` in front for the largest first. */
  sort?: string;
  loading?: boolean;
  error?: unknown;
  retry?: () => void;
  /** Said where there is no row at all. */
  empty?: { title: string; hint?: ReactNode };
  stale?: boolean;
  /** A row whose values may be old, by themselves; a column of its tells how old. */
  isOld?: (row: Row) => boolean;
  /** Enter, or a click on a row. */
  onOpen?: (row: Row) => void;
  openId?: string | null;
  selected?: ReadonlySet<string>;
  onSelect?: (ids: ReadonlySet<string>) => void;
  /** Gets the answer whether a row passes the filters now. */
  passes?: RefObject<((id: string) => boolean) | null>;
  tools?: ReactNode;
  /** Height of the scrolled part; left out, it takes what its flex parent has. */
  height?: number;
  /** There is more on the server than was read. */
  cut?: boolean;
  /** The server sorts and filters, and `rows` are those around what is looked at. */
  remote?: Remote<Row>;
}

/** A table of any length: virtual rows, sorting, filters, choice of columns, CSV, keyboard. */
export function DataTable<Row>(given: DataTableProps<Row>) {
  const { rows, columns, rowId, selected, onSelect, onOpen, remote } = given;
  const [sorting, setSorting] = useState<SortingState>(() => firstSort(given.sort));
  const [filters, setFilters] = useState<ColumnFiltersState>([]);
  const [text, setText] = useState("");
  const [hasFilters, setHasFilters] = useState(false);
  const [active, setActive] = useState<string | null>(null);
  // Where the keyboard has gone before that row was here.
  const [goal, setGoal] = useState<number | null>(null);
  const lastPlace = useRef(-1);
  const saving = useAct(`Saving ${given.label}`);
  const [shownColumns, setShownColumns] = useLocalStorage<Record<string, boolean>>({
    key: `qd-columns-${given.name}`,
    defaultValue: {},
    getInitialValueInEffect: false,
  });
  const prefix = useId();
  const scroller = useRef<HTMLDivElement>(null);

  const definitions = useMemo<ColumnDef<Row, CellValue>[]>(
    () =>
      columns.map((column) => ({
        id: column.id,
        // What is not there is undefined: so it stays last, whichever way is sorted.
        accessorFn: (row) => column.value(row) ?? undefined,
        sortingFn: (a, b, id) => orderOf(column.kind, a.getValue(id), b.getValue(id)),
        filterFn: (row, id, wanted: string) => filterOf(column.kind, row.getValue(id), wanted),
        sortUndefined: "last" as const,
      })),
    [columns],
  );
  const visibility = useMemo(
    () => Object.fromEntries(columns.map((each) => [each.id, shownColumns[each.id] ?? !each.hidden])),
    [columns, shownColumns],
  );
  const visible = useMemo(() => columns.filter((each) => visibility[each.id]), [columns, visibility]);
  const table = useReactTable<Row>({
    data: rows as Row[],
    columns: definitions,
    getRowId: rowId,
    state: { sorting, columnFilters: filters, globalFilter: text },
    onSortingChange: setSorting,
    onColumnFiltersChange: setFilters,
    onGlobalFilterChange: setText,
    globalFilterFn: (row, id, wanted: string) => filterOf("text", row.getValue(id), wanted),
    getColumnCanGlobalFilter: () => true,
    getCoreRowModel: getCoreRowModel(),
    getFilteredRowModel: getFilteredRowModel(),
    getSortedRowModel: getSortedRowModel(),
    autoResetAll: false,
    enableMultiSort: !remote,
    manualSorting: remote !== undefined,
    manualFiltering: remote !== undefined,
  });
  const found = table.getRowModel().rows;
  const count = remote?.total ?? found.length;
  const offset = remote?.offset ?? 0;
  const rowAt = (index: number) => found[index - offset];

  const virtual = useVirtualizer({
    count,
    getScrollElement: () => scroller.current,
    estimateSize: () => ROW,
    overscan: 14,
    // Rows below the sticky header, also where nothing is measured (tests).
    initialRect: { width: 800, height: 600 },
  });
  const items = virtual.getVirtualItems();
  const before = items[0]?.start ?? 0;
  const after = virtual.getTotalSize() - (items.at(-1)?.end ?? 0);

  const sort = sorting[0] ? `${sorting[0].desc ? "-" : ""}${sorting[0].id}` : "";
  const wanted = useMemo(() => filters.map((each) => ({ id: each.id, wanted: String(each.value) })), [filters]);
  useTold(remote, { text, sort, filters: wanted }, items[0]?.index ?? 0, items.at(-1)?.index ?? -1);

  const reached = goal === null ? undefined : rowAt(goal);
  if (reached) {
    setGoal(null);
    setActive(reached.id);
  }
  const here = active === null ? -1 : found.findIndex((row) => row.id === active);
  const go = (to: number) => {
    const index = Math.max(0, Math.min(count - 1, to));
    const row = rowAt(index);
    if (!row && !remote) return;
    lastPlace.current = index;
    setGoal(row ? null : index);
    setActive(row?.id ?? null);
    virtual.scrollToIndex(index, { align: "auto" });
  };
  const toggle = useCallback(
    (id: string) => {
      if (!onSelect || !selected) return;
      const next = new Set(selected);
      if (!next.delete(id)) next.add(id);
      onSelect(next);
    },
    [onSelect, selected],
  );
  const onKey = (event: KeyboardEvent) => {
    if (event.target !== event.currentTarget) return;
    // A row that the server has moved away leaves its place behind.
    const place = here >= 0 ? offset + here : remote ? lastPlace.current : -1;
    const page = Math.max(1, Math.floor((scroller.current?.clientHeight ?? 300) / ROW) - 2);
    const steps: Record<string, number> = {
      ArrowDown: place + 1, ArrowUp: place - 1, PageDown: place + page, PageUp: place - page, Home: 0, End: count - 1,
    };
    const row = rowAt(place);
    const to = steps[event.key];
    if (to !== undefined) go(to);
    else if (event.key === "Enter" && row && onOpen) onOpen(row.original);
    else if (event.key === " " && row && onSelect) toggle(row.id);
    else return;
    event.preventDefault();
  };
  const isRendered = items.some((item) => rowAt(item.index)?.id === active);

  const click = useCallback(
    (row: Row, id: string) => {
      setActive(id);
      setGoal(null);
      onOpen?.(row);
    },
    [onOpen],
  );
  const save = async () => {
    const saved = remote ? await remote.all() : found.map((row) => row.original);
    const lines = saved.map((row) => visible.map((column) => ({ value: column.value(row), isNumber: isNumeric(column.kind) })));
    const day = new Date().toISOString().slice(0, 19).replaceAll(":", "");
    download(`${given.name}-${day}.csv`, csvText(visible.map((each) => each.header), lines));
  };
  useImperativeHandle(given.passes, () => (id) => found.some((row) => row.id === id), [found]);
  const isWhole = found.length === count;
  const all = found.length > 0 && isWhole && selected !== undefined && found.every((row) => selected.has(row.id));
  const span = visible.length + (selected ? 1 : 0);
  const hasError = given.error != null;
  const passesNone = remote ? count === 0 && (text !== "" || filters.length > 0) : rows.length > 0 && !found.length;

  return (
    <div className="grid">
      <div className="grid-tools">
        <TextInput
          aria-label={`Filter ${given.label}`}
          placeholder="Filter"
          leftSection={<IconSearch size={13} aria-hidden />}
          value={text}
          w={170}
          onChange={(event) => {
            setText(event.currentTarget.value);
          }}
        />
        {given.tools}
        <span className="count" role="status">
          {remote || found.length === rows.length
            ? `${String(remote ? count : rows.length)} ${(remote ? count : rows.length) === 1 ? "row" : "rows"}`
            : `${String(found.length)} of ${String(rows.length)} rows`}
          {given.cut ? ", and more on the server" : ""}
          {given.stale ? ", not up to date" : ""}
        </span>
        <Group gap={2} ml="auto">
          <Tooltip label="A filter for each column; numbers take <, > and =">
            <ActionIcon
              aria-label="Filters by column"
              aria-pressed={hasFilters}
              variant={hasFilters || filters.length ? "light" : "subtle"}
              onClick={() => {
                if (hasFilters) setFilters([]);
                setHasFilters(!hasFilters);
              }}
            >
              <IconFilter size={15} aria-hidden />
            </ActionIcon>
          </Tooltip>
          <Popover position="bottom-end" shadow="md" trapFocus returnFocus>
            <Popover.Target>
              <ActionIcon aria-label="Columns">
                <IconColumns3 size={15} aria-hidden />
              </ActionIcon>
            </Popover.Target>
            <Popover.Dropdown mah={420} style={{ overflowY: "auto" }} aria-label="Columns to show">
              <Stack gap={6}>
                {columns.map((column) => (
                  <Checkbox
                    key={column.id}
                    size="xs"
                    label={column.header}
                    checked={visibility[column.id] ?? false}
                    onChange={() => {
                      setShownColumns({ ...shownColumns, [column.id]: !visibility[column.id] });
                    }}
                  />
                ))}
              </Stack>
            </Popover.Dropdown>
          </Popover>
          <Tooltip label="These rows and columns as CSV">
            <ActionIcon aria-label="Save as CSV" onClick={() => void saving.run(save)} loading={saving.busy} disabled={!count}>
              <IconDownload size={15} aria-hidden />
            </ActionIcon>
          </Tooltip>
        </Group>
      </div>
      <ErrorNote error={saving.error} />
      {hasError && rows.length > 0 ? <ErrorNote error={given.error} retry={given.retry} /> : null}
      <div
        ref={scroller}
        className={`grid-scroll${given.stale ? " stale" : ""}`}
        style={given.height === undefined ? undefined : { height: given.height, flex: "none" }}
      >
        <table
          role="grid"
          aria-label={given.label}
          aria-rowcount={count + 1}
          aria-colcount={span}
          aria-busy={given.loading ?? false}
          aria-multiselectable={selected ? true : undefined}
          aria-activedescendant={isRendered && active !== null ? `${prefix}-${active}` : undefined}
          tabIndex={0}
          onKeyDown={onKey}
        >
          <colgroup>
            {selected ? <col style={{ width: 34 }} /> : null}
            {visible.map((column) => (
              <col key={column.id} style={{ width: column.width ?? 110 }} />
            ))}
          </colgroup>
          <thead>
            <tr aria-rowindex={1}>
              {selected ? (
                <th scope="col" className="plain">
                  <Checkbox
                    size="xs"
                    aria-label="Select all rows"
                    checked={all}
                    // What is not here is not chosen unseen.
                    disabled={!isWhole}
                    indeterminate={!all && selected.size > 0}
                    onChange={() => onSelect?.(all ? new Set() : new Set(found.map((row) => row.id)))}
                  />
                </th>
              ) : null}
              {visible.map((column) => {
                const sorted = table.getColumn(column.id)?.getIsSorted() ?? false;
                return (
                  <th
                    key={column.id}
                    scope="col"
                    className={isNumeric(column.kind) ? "number" : undefined}
                    aria-sort={sorted === "asc" ? "ascending" : sorted === "desc" ? "descending" : "none"}
                    title={column.title}
                  >
                    <button type="button" onClick={table.getColumn(column.id)?.getToggleSortingHandler()}>
                      {column.header}
                      {sorted === "asc" ? <IconChevronUp size={12} aria-hidden /> : null}
                      {sorted === "desc" ? <IconChevronDown size={12} aria-hidden /> : null}
                    </button>
                  </th>
                );
              })}
            </tr>
            {hasFilters ? (
              <tr>
                {selected ? <th className="filter" aria-hidden /> : null}
                {visible.map((column) => (
                  <th key={column.id} className="filter">
                    <TextInput
                      size="xs"
                      aria-label={`Filter by ${column.header}`}
                      value={(table.getColumn(column.id)?.getFilterValue() as string | undefined) ?? ""}
                      onChange={(event) => {
                        table.getColumn(column.id)?.setFilterValue(event.currentTarget.value || undefined);
                      }}
                    />
                  </th>
                ))}
              </tr>
            ) : null}
          </thead>
          <tbody>
            {before > 0 ? <Spacer height={before} span={span} /> : null}
            {items.map((item) => {
              const row = rowAt(item.index);
              if (!row) return <Spacer key={item.index} height={ROW} span={span} />;
              return (
                <Line
                  key={row.id}
                  id={row.id}
                  domId={`${prefix}-${row.id}`}
                  row={row.original}
                  index={item.index}
                  columns={visible as readonly Column<unknown>[]}
                  isOld={given.isOld?.(row.original) ?? false}
                  isActive={row.id === active}
                  isSelected={selected ? selected.has(row.id) : row.id === given.openId}
                  selectable={selected !== undefined}
                  opens={onOpen !== undefined}
                  onClick={click as (row: unknown, id: string) => void}
                  onToggle={toggle}
                />
              );
            })}
            {after > 0 ? <Spacer height={after} span={span} /> : null}
          </tbody>
        </table>
        {given.loading && !rows.length ? <Loading /> : null}
        {!given.loading && hasError && !rows.length ? (
          <div className="grid-note">
            <ErrorNote error={given.error} retry={given.retry} />
          </div>
        ) : null}
        {!given.loading && !hasError && !rows.length && !passesNone && count === 0 ? (
          <div className="grid-note">
            <strong>{given.empty?.title ?? "Nothing here yet"}</strong>
            {given.empty?.hint}
          </div>
        ) : null}
        {passesNone ? (
          <div className="grid-note">
            <strong>No row passes the filters</strong>
            <Button
              variant="default"
              mt={6}
              onClick={() => {
                setText("");
                setFilters([]);
              }}
            >
              Show all
            </Button>
          </div>
        ) : null}
      </div>
    </div>
  );
}

function firstSort(sort: string | undefined): SortingState {
  if (!sort) return [];
  return [{ id: sort.replace(/^-/, ""), desc: sort.startsWith("-") }];
}
