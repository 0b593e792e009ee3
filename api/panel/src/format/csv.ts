/** CSV of what is shown, safe to open in a spreadsheet; the same guard as the server's exports. */

/** As `safe` of `api/csv_text.py`: the wide ones are those of East Asia. */
const RUNS = /^ *[=+\-@\t\r\n'＝＋－＠]/;

/** A text that a spreadsheet would run gets an apostrophe in front; plain numbers are left alone. */
export function csvField(value: string | number | boolean | null | undefined, isNumber: boolean): string {
  if (value == null) return "";
  let text = String(value);
  if (!(isNumber && /^[+-]?\d+(\.\d+)?([eE][+-]?\d+)?$/.test(text)) && RUNS.test(text)) text = `'${text}`;
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

export function csvText(header: string[], rows: { value: string | number | boolean | null | undefined; isNumber: boolean }[][]): string {
  const lines = rows.map((row) => row.map((cell) => csvField(cell.value, cell.isNumber)).join(","));
  return [header.map((name) => csvField(name, false)).join(","), ...lines].join("\r\n") + "\r\n";
}

/** Hand a text to the browser as a file. */
export function download(name: string, text: string, type = "text/csv;charset=utf-8"): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => { URL.revokeObjectURL(url); }, 1_000);
}
