/** All pages of a list. */

export interface PageOf<T> {
  items: T[];
  next?: string | null;
}

/** Read on from cursor to cursor, up to `most` rows; `whole` is false where there is more. */
export async function readAll<T>(
  read: (cursor: string | null) => Promise<PageOf<T>>,
  most = 10_000,
): Promise<{ items: T[]; whole: boolean }> {
  const items: T[] = [];
  let cursor: string | null = null;
  do {
    const page: PageOf<T> = await read(cursor);
    items.push(...page.items);
    cursor = page.next ?? null;
  } while (cursor !== null && items.length < most);
  return { items, whole: cursor === null };
}
