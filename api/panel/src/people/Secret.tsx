/** A secret that is shown this once. */
import { Alert, Button, Code, Group, Modal, Stack, Text } from "@mantine/core";

import { Copy } from "@/session/Enrolment";

export function SecretOnce(given: { title: string; secret: string | null; note: string; onClose: () => void }) {
  return (
    <Modal
      opened={given.secret !== null}
      onClose={given.onClose}
      title={<strong>{given.title}</strong>}
      closeOnClickOutside={false}
      closeOnEscape={false}
      withCloseButton={false}
    >
      <Stack gap="sm">
        <Alert color="yellow" p="xs">
          It is shown now and never again.
        </Alert>
        <Text>{given.note}</Text>
        <Group wrap="nowrap">
          <Code block style={{ flex: 1, overflowWrap: "anywhere", whiteSpace: "pre-wrap" }}>
            {given.secret}
          </Code>
          <Copy text={given.secret ?? ""} what={given.title} />
        </Group>
        <Group justify="flex-end">
          <Button onClick={given.onClose}>I have kept it</Button>
        </Group>
      </Stack>
    </Modal>
  );
}
