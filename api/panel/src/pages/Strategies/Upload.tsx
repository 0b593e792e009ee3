/** Upload code: checked, tried over a made-up market, and kept under the digest of what it is. */
import { Autocomplete, Button, Checkbox, FileInput, Group, Modal, Stack, TagsInput, Textarea, TextInput } from "@mantine/core";
import { useQueryClient } from "@tanstack/react-query";
import { useState } from "react";
import { useNavigate } from "react-router";

import { api, expect } from "@/api/client";
import { ErrorNote } from "@/components/ErrorNote";
import { InstrumentsInput } from "@/components/InstrumentInput";
import { errorAt, isAboutNone } from "@/components/SchemaForm";
import { useAct } from "@/components/useAct";

/** As the server's own bound: a larger file is not sent at all. */
export const MOST_BYTES = 20_000_000;

const FIELDS = ["name", "file", "entry", "requirements", "requirement", "parameters", "instruments", "instrument", "smoke"];

export function Upload(given: { known: string[]; name?: string; onClose: () => void }) {
  const client = useQueryClient();
  const navigate = useNavigate();
  const [name, setName] = useState(given.name ?? "");
  const [file, setFile] = useState<File | null>(null);
  const [entry, setEntry] = useState("");
  const [requirements, setRequirements] = useState<string[]>([]);
  const [parameters, setParameters] = useState("");
  const [instruments, setInstruments] = useState<string[]>([]);
  const [smoke, setSmoke] = useState(true);
  const isLarge = file !== null && file.size > MOST_BYTES;
  const { busy, error, run } = useAct("Uploading a strategy");
  const send = async (code: File) => {
    const made = await expect(
      api.POST("/v1/strategies/{name}/versions", {
        params: {
          path: { name: name.trim() },
          query: {
            file: code.name,
            entry: entry.trim(),
            requirement: requirements,
            parameters: parameters.trim(),
            instrument: instruments,
            smoke,
          },
        },
        // The document says bytes; openapi-typescript calls them a string.
        body: code as unknown as string,
        bodySerializer: (body) => body as unknown as Blob,
        headers: { "Content-Type": "application/octet-stream" },
      }),
    );
    void client.invalidateQueries({ queryKey: ["strategies"] });
    void client.invalidateQueries({ queryKey: ["versions", made.strategy] });
    return made;
  };
  const done = ({ strategy }: { strategy: string }) => {
    given.onClose();
    void navigate(`/strategies/${encodeURIComponent(strategy)}`);
  };
  // It takes minutes: by then people are elsewhere, and stay there.
  const left = ({ strategy, version }: { strategy: string; version: string }) => ({
    title: `${strategy} was uploaded`,
    message: `It was checked, and is version ${version.slice(0, 8)}.`,
    isBad: false,
  });
  return (
    <Modal opened onClose={given.onClose} title={<strong>Upload a strategy</strong>} size="lg">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          if (file && !isLarge) void run(() => send(file), done, left);
        }}
      >
        <Stack gap="sm">
          <Autocomplete
            size="xs"
            label="Strategy"
            description="A new name, or one that there is: then this is its newest version"
            required
            data={given.known}
            value={name}
            onChange={setName}
            error={errorAt(error, "name")}
          />
          <FileInput
            size="xs"
            label="File"
            description="A .py, .zip or .whl of 20 MB at most"
            required
            clearable
            accept=".py,.zip,.whl"
            value={file}
            onChange={setFile}
            error={isLarge ? "It has more than 20 MB" : (errorAt(error, "file") ?? errorAt(error, "source"))}
          />
          <TextInput
            label="Entry"
            description="module:Class, where the file has more than one strategy"
            autoComplete="off"
            value={entry}
            error={errorAt(error, "entry")}
            onChange={(event) => {
              setEntry(event.currentTarget.value);
            }}
          />
          <TagsInput
            size="xs"
            label="Requirements"
            description="Packages it needs, such as scipy>=1.14"
            value={requirements}
            onChange={setRequirements}
            error={errorAt(error, "requirements") ?? errorAt(error, "requirement")}
          />
          <Checkbox
            size="xs"
            label="Try it over a made-up market first"
            checked={smoke}
            error={errorAt(error, "smoke")}
            onChange={(event) => {
              setSmoke(event.currentTarget.checked);
            }}
          />
          {smoke ? (
            <>
              <Textarea
                label="Parameters to try it with (JSON)"
                placeholder="{}"
                value={parameters}
                error={errorAt(error, "parameters")}
                onChange={(event) => {
                  setParameters(event.currentTarget.value);
                }}
              />
              <InstrumentsInput
                label="Instruments to try it with"
                value={instruments}
                onChange={setInstruments}
                error={errorAt(error, "instruments") ?? errorAt(error, "instrument")}
              />
            </>
          ) : null}
          {isAboutNone(error, FIELDS) ? <ErrorNote error={error} /> : null}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={given.onClose}>
              Cancel
            </Button>
            <Button type="submit" loading={busy} disabled={!file || isLarge || !name.trim()}>
              Check and upload
            </Button>
          </Group>
        </Stack>
      </form>
    </Modal>
  );
}
