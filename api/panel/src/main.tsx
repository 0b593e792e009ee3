import "@fontsource-variable/inter";
import "@mantine/core/styles.css";
import "@mantine/notifications/styles.css";
import "@mantine/spotlight/styles.css";
import "./styles.css";

import { MantineProvider } from "@mantine/core";
import { notifications } from "@mantine/notifications";
import { QueryClient, QueryClientProvider } from "@tanstack/react-query";
import { setNonce } from "get-nonce";
import { StrictMode } from "react";
import { createRoot } from "react-dom/client";

import { NetworkLost, ProblemError } from "@/api/problem";
import { install, watchInput } from "@/api/transport";
import { lostSight, tellUncertain } from "@/layout/Uncertain";
import { askFreshCode } from "@/session/FreshCode";
import { forgetSession } from "@/session/session";

import { App } from "./App";
import { theme, variables } from "./theme";

const nonce = document.querySelector<HTMLMetaElement>('meta[name="csp-nonce"]')?.content ?? "";
// For the style elements that dialogs make.
setNonce(nonce);

const client = new QueryClient({
  defaultOptions: {
    queries: {
      staleTime: 5_000,
      // What the server refuses it refuses again.
      retry: (count, error) =>
        count < 3 && (error instanceof NetworkLost || (error instanceof ProblemError && error.status === 503)),
      refetchOnWindowFocus: true,
      networkMode: "always",
    },
    mutations: { networkMode: "always" },
  },
});

install({
  onSignedOut: (why) => {
    forgetSession(client, why);
  },
  // The page that asked goes with the session; this stays for whoever signs in.
  onLostSight: (what) => {
    notifications.show(lostSight(what));
  },
  askFreshCode,
  onUncertain: tellUncertain,
});
watchInput(window);

const root = document.getElementById("root");
if (!root) throw new Error("index.html has no element of the id root");
createRoot(root).render(
  <StrictMode>
    <MantineProvider theme={theme} cssVariablesResolver={variables} defaultColorScheme="dark" getStyleNonce={() => nonce}>
      <QueryClientProvider client={client}>
        <App />
      </QueryClientProvider>
    </MantineProvider>
  </StrictMode>,
);
