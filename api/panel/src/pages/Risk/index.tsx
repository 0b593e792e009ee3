/** Risk: what may be lost where, limits and their use, the day's worst, and the way to the kill switch. */
import { Button, Tabs } from "@mantine/core";
import { IconShieldHalf } from "@tabler/icons-react";
import { Link } from "react-router";

import { Page } from "@/components/Page";
import { useIsOperator } from "@/session/session";

import { Heat } from "./Heat";
import { Limits } from "./Limits";
import { Losses } from "./Losses";
import { Maxima } from "./Maxima";
import { Surveillance } from "./Surveillance";

export default function Risk() {
  const isOperator = useIsOperator();
  return (
    <Page
      title="Risk"
      actions={
        <Button component={Link} to="/kill" color="red.8" leftSection={<IconShieldHalf size={14} aria-hidden />}>
          Kill switch
        </Button>
      }
    >
      <Tabs defaultValue="limits" keepMounted={false}>
        <Tabs.List>
          <Tabs.Tab value="limits">Limits</Tabs.Tab>
          <Tabs.Tab value="heat">Money at risk</Tabs.Tab>
          <Tabs.Tab value="losses">Losses and drawdown</Tabs.Tab>
          <Tabs.Tab value="maxima">Daily maxima</Tabs.Tab>
          {isOperator ? <Tabs.Tab value="surveillance">Surveillance</Tabs.Tab> : null}
        </Tabs.List>
        <Tabs.Panel value="limits" pt="xs">
          <Limits />
        </Tabs.Panel>
        <Tabs.Panel value="heat" pt="xs">
          <Heat />
        </Tabs.Panel>
        <Tabs.Panel value="losses" pt="xs">
          <Losses />
        </Tabs.Panel>
        <Tabs.Panel value="maxima" pt="xs">
          <Maxima />
        </Tabs.Panel>
        {isOperator ? (
          <Tabs.Panel value="surveillance" pt="xs">
            <Surveillance />
          </Tabs.Panel>
        ) : null}
      </Tabs>
    </Page>
  );
}
