// The operations of the long-term store.
import { Item, Items, Namespaces } from "./answers.ts";
import { itemDelete, itemPut, itemQuery, itemSearch, namespaceList } from "../store-schemas.ts";
import { json, nothing } from "./describe.ts";
import type { Noun } from "./describe.ts";

const refused = { 422: ["store_namespace_invalid"] };

export const store: Noun = {
  tag: "Store",
  about: "Items that outlive threads, under a namespace and a key.",
  operations: {
    "PUT /store/items": {
      id: "putItem",
      summary: "Write an item",
      about:
        "`ttl` is in minutes, counted from the last write or read. `index` names the fields by which a search by meaning finds the item.",
      body: itemPut,
      answers: nothing,
      errors: { 422: [...refused[422], "pii_in_identifier"], 502: ["embedding_failed"] },
    },
    "GET /store/items": {
      id: "getItem",
      summary: "Get an item",
      about: "`namespace` is its labels with dots between them.",
      query: itemQuery,
      answers: json(Item.nullable(), "The item, or null."),
      errors: { 422: [...refused[422], "poisoned_input"] },
    },
    "DELETE /store/items": {
      id: "deleteItem",
      summary: "Delete an item",
      body: itemDelete,
      answers: nothing,
      errors: refused,
    },
    "POST /store/items/search": {
      id: "searchItems",
      summary: "Search items under a namespace prefix",
      about: "With `query`, by meaning: the nearest items first.",
      body: itemSearch,
      answers: json(Items, "A page of items."),
      errors: { 422: ["store_namespace_invalid", "store_search_unavailable"], 502: ["embedding_failed"] },
    },
    "POST /store/namespaces": {
      id: "listNamespaces",
      summary: "List namespaces",
      body: namespaceList,
      answers: json(Namespaces, "A page of namespaces, sorted."),
      errors: refused,
    },
  },
};
