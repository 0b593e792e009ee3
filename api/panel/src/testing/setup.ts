import "@testing-library/jest-dom/vitest";

import { transferableAbortController } from "node:util";

import { cleanup, configure } from "@testing-library/react";
import { afterEach, vi } from "vitest";

afterEach(cleanup);
configure({ asyncUtilTimeout: 10_000 });

// `Request` is Node's, which takes the signals of its own only, and not jsdom's.
const native = transferableAbortController();
Object.assign(globalThis, { AbortController: native.constructor, AbortSignal: native.signal.constructor });

// What Mantine asks of a browser and jsdom lacks.
Object.defineProperty(window, "matchMedia", {
  value: (query: string) => ({
    matches: false,
    media: query,
    onchange: null,
    addEventListener: vi.fn(),
    removeEventListener: vi.fn(),
    addListener: vi.fn(),
    removeListener: vi.fn(),
    dispatchEvent: vi.fn(),
  }),
});
class Observer {
  observe = vi.fn();
  unobserve = vi.fn();
  disconnect = vi.fn();
}
Object.assign(globalThis, { ResizeObserver: Observer });
Element.prototype.scrollIntoView = vi.fn();
// jsdom lays nothing out; virtual rows need a window.
Object.defineProperty(HTMLElement.prototype, "clientHeight", { configurable: true, value: 600 });
Object.defineProperty(HTMLElement.prototype, "clientWidth", { configurable: true, value: 800 });
