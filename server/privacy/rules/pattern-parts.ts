// What the pattern of a rule is made of.

export interface Quantifier {
  readonly min: number;
  readonly max: number;
  readonly lazy: string;
}
export interface Atom {
  readonly type: "atom";
  readonly source: string;
  readonly quantifier: Quantifier;
}
export type Item =
  | Atom
  | { readonly type: "group"; readonly body: Branches; readonly quantifier: Quantifier }
  | { readonly type: "ahead"; readonly open: string; readonly body: Branches }
  | { readonly type: "behind"; readonly source: string }
  | { readonly type: "border"; readonly source: string };
/** The alternatives of a group, each a sequence. */
export type Branches = readonly (readonly Item[])[];
