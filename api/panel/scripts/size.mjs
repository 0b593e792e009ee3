// The JavaScript that the first page needs, gzipped: the entry, what it imports, and the deck's own chunk.
import { readFileSync } from "node:fs";
import { gzipSync } from "node:zlib";

const MOST = 350 * 1000;
const manifest = JSON.parse(readFileSync("dist/.vite/manifest.json", "utf8"));
const needed = new Set();

function take(key) {
  const chunk = manifest[key];
  if (!chunk || needed.has(chunk.file)) return;
  needed.add(chunk.file);
  for (const each of chunk.imports ?? []) take(each);
}

const starts = Object.keys(manifest).filter((key) => manifest[key].isEntry || key === "src/pages/Deck/index.tsx");
if (starts.length < 2) throw new Error("the entry and the deck are not both in the manifest");
starts.forEach(take);

let total = 0;
for (const file of [...needed].filter((each) => each.endsWith(".js")).sort()) {
  const size = gzipSync(readFileSync(`dist/${file}`)).length;
  total += size;
  console.log(`${(size / 1000).toFixed(1).padStart(8)} kB  ${file}`);
}
console.log(`${(total / 1000).toFixed(1).padStart(8)} kB  in all, of ${MOST / 1000}`);
if (total > MOST) {
  console.error("the first page has become too heavy: load what it does not need lazily");
  process.exit(1);
}
