/** The parts of a table below its header: a row, the room of rows that are not drawn, and what is shown while it loads. */
import { Checkbox, Skeleton } from "@mantine/core";
import { memo } from "react";

import { type CellValue, type Column, isNumeric } from "./columns";

export function Spacer(given: { height: number; span: number }) {
  return (
    <tr className="spacer" aria-hidden>
      <td colSpan={given.span} style={{ height: given.height }} />
    </tr>
  );
}

export function Loading() {
  return (
    <div className="grid-note" role="status">
      <span className="hidden-label">Loading</span>
      {[84, 92, 76, 88, 70].map((width) => (
        <Skeleton key={width} height={12} mb={12} width={`${String(width)}%`} />
      ))}
    </div>
  );
}

interface LineProps {
  id: string;
  domId: string;
  row: unknown;
  index: number;
  columns: readonly Column<unknown>[];
  isOld: boolean;
  isActive: boolean;
  isSelected: boolean;
  selectable: boolean;
  opens: boolean;
  onClick: (row: unknown, id: string) => void;
  onToggle: (id: string) => void;
}

/** One row; drawn again only when its own row has changed. */
export const Line = memo(function Line(given: LineProps) {
  const { row, id, columns } = given;
  return (
    <tr
      id={given.domId}
      className={given.isOld ? "stale" : undefined}
      aria-rowindex={given.index + 2}
      aria-selected={given.isSelected}
      data-active={given.isActive}
      data-opens={given.opens}
      onClick={() => {
        given.onClick(row, id);
      }}
    >
      {given.selectable ? (
        <td
          onClick={(event) => {
            event.stopPropagation();
          }}
        >
          <Checkbox
            size="xs"
            aria-label={`Select ${id}`}
            checked={given.isSelected}
            onChange={() => {
              given.onToggle(id);
            }}
          />
        </td>
      ) : null}
      {columns.map((column) => {
        const value = column.value(row);
        return (
          <td key={column.id} className={isNumeric(column.kind) ? "number" : undefined} title={titleOf(column, value)}>
            {column.cell ? column.cell(row) : value == null || value === "" ? <span className="muted">–</span> : String(value)}
          </td>
        );
      })}
    </tr>
  );
});

function titleOf(column: Column<unknown>, value: CellValue): string | undefined {
  return column.kind === undefined || column.kind === "text" ? String(value ?? "") || undefined : undefined;
}
