/** Amounts that stand for several others, with the currency of all of them. */
import { Money } from "./values";

export interface InCurrencies {
  /** Of all amounts; "" where it is not known, or there are several. */
  currency: string;
  currencies: string[];
}

/** An amount of a level; in several currencies there is none, and that is said. */
export function Summed(given: { value: string | null | undefined; of: InCurrencies | undefined; signed?: boolean; places?: number }) {
  const { of, ...money } = given;
  if (given.value == null && of && of.currencies.length > 1) {
    return (
      <span className="muted" title={`Amounts in ${inWords(of.currencies)} are not added up`}>
        no sum ({of.currencies.join(", ")})
      </span>
    );
  }
  return <Money {...money} currency={of?.currency} />;
}

export const inWords = (names: string[]): string =>
  names.length > 1 ? `${names.slice(0, -1).join(", ")} and ${names.at(-1) ?? ""}` : (names[0] ?? "");
