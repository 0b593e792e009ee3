import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

import react from "@vitejs/plugin-react";
import type { Plugin } from "vite";
import { defineConfig } from "vitest/config";

const server = process.env.QUARTERDECK_API ?? "http://127.0.0.1:8470";

/** What the API's page at /docs shows its document with, as released: a folder of its own that no page of ours loads. */
const SWAGGER_UI = ["swagger-ui-bundle.js", "swagger-ui-bundle.js.LICENSE.txt", "swagger-ui.css", "LICENSE", "NOTICE"];

function swaggerUi(): Plugin {
  return {
    name: "swagger-ui",
    apply: "build",
    generateBundle() {
      for (const name of SWAGGER_UI) {
        const source = readFileSync(new URL(`./node_modules/swagger-ui-dist/${name}`, import.meta.url));
        this.emitFile({ type: "asset", fileName: `swagger-ui/${name}`, source });
      }
    },
  };
}

export default defineConfig({
  plugins: [react(), swaggerUi()],
  resolve: { alias: { "@": fileURLToPath(new URL("./src", import.meta.url)) } },
  build: {
    target: "es2022",
    // Everything is a file of our own origin: the content security policy allows nothing else.
    assetsInlineLimit: 0,
    manifest: true,
    chunkSizeWarningLimit: 700,
  },
  server: { proxy: { "/v1": { target: server, ws: true, changeOrigin: false } } },
  test: {
    environment: "jsdom",
    setupFiles: ["./src/testing/setup.ts"],
    include: ["src/**/*.test.{ts,tsx}"],
    restoreMocks: true,
    // By default one processor is kept for whoever watches.
    maxWorkers: 2,
    // Machines that test are busy ones.
    testTimeout: 20_000,
  },
});
