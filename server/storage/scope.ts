// Whose rows a statement may touch. Every storage function of tenant data takes a Scope.

export interface Scope {
  readonly tenantId: string;
}

/** The only tenant of a server without authentication. */
export const defaultScope: Scope = { tenantId: "default" };
