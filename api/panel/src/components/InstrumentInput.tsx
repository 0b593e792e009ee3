/** Choose instruments by typing a part of their names. */
import { Loader, MultiSelect, Select } from "@mantine/core";
import { useDebouncedValue } from "@mantine/hooks";
import { keepPreviousData, useQuery } from "@tanstack/react-query";
import { useState } from "react";

import { api, expect } from "@/api/client";

function useFound(text: string, provider: string | undefined) {
  const [query] = useDebouncedValue(text.trim(), 180);
  return useQuery({
    queryKey: ["instruments", provider ?? "", query],
    queryFn: () =>
      expect(api.GET("/v1/instruments", { params: { query: { query, limit: 50, ...(provider ? { provider } : {}) } } })),
    placeholderData: keepPreviousData,
    staleTime: 60_000,
  });
}

export function InstrumentsInput(given: {
  label: string;
  description?: string;
  value: string[];
  onChange: (ids: string[]) => void;
  provider?: string | undefined;
  error?: string | undefined;
}) {
  const [text, setText] = useState("");
  const { data, isFetching } = useFound(text, given.provider);
  const listed = new Set([...given.value, ...(data?.items ?? []).map((each) => each.id)]);
  return (
    <MultiSelect
      size="xs"
      label={given.label}
      description={given.description}
      data={[...listed]}
      value={given.value}
      onChange={given.onChange}
      searchable
      searchValue={text}
      onSearchChange={setText}
      limit={50}
      error={given.error}
      rightSection={isFetching ? <Loader size={12} /> : undefined}
      nothingFoundMessage="No instrument of that name; import a provider's list first"
    />
  );
}

export function InstrumentInput(given: {
  label: string;
  value: string | null;
  onChange: (id: string | null) => void;
  error?: string | undefined;
  hideLabel?: boolean;
  width?: number;
}) {
  const [text, setText] = useState("");
  const { data, isFetching } = useFound(text === given.value ? "" : text, undefined);
  const listed = new Set([...(given.value ? [given.value] : []), ...(data?.items ?? []).map((each) => each.id)]);
  return (
    <Select
      {...(given.hideLabel ? { "aria-label": given.label } : { label: given.label })}
      placeholder="Instrument"
      data={[...listed]}
      value={given.value}
      onChange={given.onChange}
      searchable
      searchValue={text}
      onSearchChange={setText}
      limit={50}
      error={given.error}
      w={given.width}
      rightSection={isFetching ? <Loader size={12} /> : undefined}
      nothingFoundMessage="No instrument of that name"
    />
  );
}
