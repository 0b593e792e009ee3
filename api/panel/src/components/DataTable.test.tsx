import { MantineProvider } from "@mantine/core";
import { fireEvent, render, screen, within } from "@testing-library/react";
import userEvent from "@testing-library/user-event";
import { beforeEach, describe, expect, it, vi } from "vitest";

import { ProblemError } from "@/api/problem";
import * as csv from "@/format/csv";

import { filterOf, orderOf } from "./columns";
import { type Column, DataTable, type DataTableProps } from "./DataTable";

interface Row {
  id: string;
  amount: string | null;
  note: string;
}

const COLUMNS: Column<Row>[] = [
  { id: "id", header: "Name", value: (row) => row.id },
  { id: "amount", header: "Amount", kind: "decimal", value: (row) => row.amount },
  { id: "note", header: "Note", value: (row) => row.note, hidden: true },
];
const ROWS: Row[] = [
  { id: "b", amount: "10", note: "=x" },
  { id: "a", amount: "9.5", note: "two" },
  { id: "c", amount: null, note: "three" },
  { id: "d", amount: "-100", note: "<img src=x onerror=alert(1)>" },
];

function show(given: Partial<DataTableProps<Row>> = {}) {
  return render(
    <MantineProvider>
      <DataTable name="test" label="Rows" rows={ROWS} columns={COLUMNS} rowId={(row) => row.id} {...given} />
    </MantineProvider>,
  );
}

const names = () =>
  screen
    .getAllByRole("row")
    .slice(1)
    .filter((row) => row.hasAttribute("aria-selected"))
    .map((row) => within(row).getAllByRole("cell")[0]?.textContent);

beforeEach(() => {
  localStorage.clear();
});

describe("a table", () => {
  it("sorts amounts as amounts, and what has none last", async () => {
    show();
    await userEvent.click(screen.getByRole("button", { name: "Amount" }));
    const header = screen.getByRole("columnheader", { name: "Amount" });
    const first = header.getAttribute("aria-sort");
    expect(["ascending", "descending"]).toContain(first);
    const up = ["d", "a", "b", "c"];
    expect(names()).toEqual(first === "ascending" ? up : ["b", "a", "d", "c"]);
    await userEvent.click(screen.getByRole("button", { name: "Amount" }));
    expect(header.getAttribute("aria-sort")).not.toBe(first);
    expect(names()).toEqual(first === "ascending" ? ["b", "a", "d", "c"] : up);
  });

  it("begins with the order that it is given", () => {
    show({ sort: "-id" });
    expect(names()).toEqual(["d", "c", "b", "a"]);
  });

  it("filters by text, and by column with bounds", async () => {
    show();
    await userEvent.type(screen.getByLabelText("Filter Rows"), "9.5");
    expect(names()).toEqual(["a"]);
    await userEvent.clear(screen.getByLabelText("Filter Rows"));
    await userEvent.click(screen.getByLabelText("Filters by column"));
    await userEvent.type(screen.getByLabelText("Filter by Amount"), ">9.5");
    expect(names()).toEqual(["b"]);
    await userEvent.type(screen.getByLabelText("Filter by Name"), "zz");
    expect(screen.getByText("No row passes the filters")).toBeVisible();
    await userEvent.click(screen.getByRole("button", { name: "Show all" }));
    expect(names()).toHaveLength(4);
  });

  it("saves what is shown, and nothing that a spreadsheet would run", async () => {
    const saved = vi.spyOn(csv, "download").mockImplementation(() => undefined);
    show({ columns: COLUMNS.map((each) => ({ ...each, hidden: false })) });
    await userEvent.type(screen.getByLabelText("Filter Rows"), "b");
    await userEvent.click(screen.getByLabelText("Save as CSV"));
    expect(saved.mock.calls[0]?.[1]).toBe("Name,Amount,Note\r\nb,10,'=x\r\n");
  });

  it("shows hostile text as text", () => {
    show({ columns: COLUMNS.map((each) => ({ ...each, hidden: false })) });
    expect(screen.getByText("<img src=x onerror=alert(1)>")).toBeVisible();
    expect(document.querySelector("tbody img")).toBeNull();
  });

  it("is walked and opened by keys", () => {
    const opened = vi.fn();
    show({ onOpen: opened });
    const grid = screen.getByRole("grid");
    grid.focus();
    fireEvent.keyDown(grid, { key: "ArrowDown" });
    fireEvent.keyDown(grid, { key: "ArrowDown" });
    expect(document.getElementById(grid.getAttribute("aria-activedescendant") ?? "")).toHaveTextContent("a");
    fireEvent.keyDown(grid, { key: "Enter" });
    expect(opened).toHaveBeenCalledExactlyOnceWith(ROWS[1]);
    fireEvent.keyDown(grid, { key: "End" });
    fireEvent.keyDown(grid, { key: "Enter" });
    expect(opened).toHaveBeenLastCalledWith(ROWS[3]);
  });

  it("selects by box and by key", async () => {
    const onSelect = vi.fn();
    show({ selected: new Set(["a"]), onSelect });
    await userEvent.click(screen.getByLabelText("Select b"));
    expect(onSelect).toHaveBeenLastCalledWith(new Set(["a", "b"]));
    const grid = screen.getByRole("grid");
    fireEvent.keyDown(grid, { key: "Home" });
    fireEvent.keyDown(grid, { key: " " });
    expect(onSelect).toHaveBeenLastCalledWith(new Set(["a", "b"]));
    await userEvent.click(screen.getByLabelText("Select all rows"));
    expect(onSelect).toHaveBeenLastCalledWith(new Set(["a", "b", "c", "d"]));
  });

  it("keeps the choice of columns", async () => {
    const { unmount } = show();
    expect(screen.queryByRole("columnheader", { name: "Note" })).toBeNull();
    await userEvent.click(screen.getByLabelText("Columns"));
    await userEvent.click(await screen.findByLabelText("Note"));
    expect(screen.getByRole("columnheader", { name: "Note" })).toBeInTheDocument();
    unmount();
    show();
    expect(screen.getByRole("columnheader", { name: "Note" })).toBeInTheDocument();
  });

  it("tells apart: empty, loading, failed", () => {
    const { rerender } = show({ rows: [], empty: { title: "No order is open" } });
    expect(screen.getByText("No order is open")).toBeVisible();
    const again = (given: Partial<DataTableProps<Row>>) => {
      rerender(
        <MantineProvider>
          <DataTable name="test" label="Rows" rows={[]} columns={COLUMNS} rowId={(row) => row.id} {...given} />
        </MantineProvider>,
      );
    };
    again({ loading: true });
    expect(screen.getByRole("grid")).toHaveAttribute("aria-busy", "true");
    expect(screen.queryByText("Nothing here yet")).toBeNull();
    const retry = vi.fn();
    const error = new ProblemError({ status: 503, code: "not_ready", title: "Not ready", detail: "the database is away" });
    again({ error, retry });
    expect(screen.getByRole("alert")).toHaveTextContent("the database is away");
    fireEvent.click(screen.getByRole("button", { name: "Try again" }));
    expect(retry).toHaveBeenCalledOnce();
  });

  it("draws few of many rows", () => {
    const many = Array.from({ length: 5_000 }, (_, i) => ({ id: `r${String(i)}`, amount: String(i), note: "" }));
    show({ rows: many });
    expect(screen.getByRole("grid")).toHaveAttribute("aria-rowcount", "5001");
    expect(screen.getAllByRole("row").length).toBeLessThan(80);
  });

  it("draws a row again only when it has changed", () => {
    const cell = vi.fn((row: Row) => row.id);
    const columns: Column<Row>[] = [{ id: "id", header: "Name", value: (row) => row.id, cell }];
    const table = (rows: Row[]) => (
      <MantineProvider>
        <DataTable name="test" label="Rows" rows={rows} columns={columns} rowId={(row) => row.id} />
      </MantineProvider>
    );
    const { rerender } = render(table(ROWS));
    cell.mockClear();
    rerender(table(ROWS.map((row) => (row.id === "a" ? { ...row, amount: "1" } : row))));
    expect(cell.mock.calls.map(([row]) => row.id)).toEqual(["a"]);
  });
});

describe("values", () => {
  it("are ordered by their kind", () => {
    expect(orderOf("time", "2026-01-01T00:00:00.000000002+00:00", "2025-01-01T00:00:00+00:00")).toBeGreaterThan(0);
    expect(orderOf("number", 2, 10)).toBeLessThan(0);
    expect(orderOf("text", "algo-2", "algo-10")).toBeLessThan(0);
  });

  it("pass bounds of numbers only", () => {
    expect(filterOf("decimal", "10", ">= 10")).toBe(true);
    expect(filterOf("decimal", "-1", "<0")).toBe(true);
    expect(filterOf("decimal", "9.99", "=10")).toBe(false);
    expect(filterOf("text", "a>5", ">5")).toBe(true);
    expect(filterOf("decimal", null, "<5")).toBe(false);
  });
});
