// All rules that are always on, in order: of two findings that begin at the same place the earlier names both.
import { contacts } from "./contacts.ts";
import { identifiers } from "./identifiers.ts";
import { numbers } from "./numbers.ts";
import type { Rule } from "./rule.ts";
import { secrets } from "./secrets.ts";

export const structured: readonly Rule[] = [...secrets, ...numbers, ...contacts, ...identifiers];
