// The words of a text that carry meaning, cut down so that "refunds", "refunded" and "refunding" are one.
// Crude on purpose: it ranks sentences of passages that a real search has already found.

const STOP_WORDS = new Set(
  `a about above after again all also am an and any are as ask at be because been before being below both but by can
  could did do does doing done else for from get give had has have having he her here him his how i if in into is it
  its just let like many may me might mine more most much must my no nor not now of off on one only or our out over
  please same say shall she should show so some such tell than that the their them then there these they thing this
  those to too under until up us use using very want was way we were what when where which while who whom whose why
  will with would yes you your explain describe know mean happen long work`.split(/\s+/),
);
const ENDINGS = [
  "ations",
  "ation",
  "ingly",
  "ments",
  "ment",
  "ings",
  "ing",
  "edly",
  "ies",
  "ed",
  "es",
  "ly",
  "s",
];
const SHORTEST_STEM = 3;

/** Stems in order of appearance, repeated as often as they appear; stop words are left out. */
export function termsOf(text: string): string[] {
  const words =
    text
      .normalize("NFKC")
      .toLowerCase()
      .match(/[\p{L}\p{M}\p{N}_]{1,60}/gu) ?? [];
  return words.filter((word) => !STOP_WORDS.has(word)).map(stem);
}

function stem(word: string): string {
  if (!/^[a-z]+$/.test(word)) return word;
  const ending = ENDINGS.find((one) => word.endsWith(one) && word.length - one.length >= SHORTEST_STEM);
  const cut = ending ? word.slice(0, -ending.length) : word;
  // "stopped" leaves "stopp", "configure" and "configuring" differ by an e, "policies" and "policy" by a y.
  return cut.length > SHORTEST_STEM ? cut.replace(/([b-df-hj-np-tv-z])\1$/, "$1").replace(/[eiy]$/, "") : cut;
}
