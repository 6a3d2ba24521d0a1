// Named points at which a process may be made to die: no-ops until one is armed. The crash suite finds the names by
// searching the sources, so that none is forgotten.

let armed: { readonly name: string; left: number; readonly act: () => void } | undefined;

/** Arms one point: `act` is called when it is passed for the `nth` time (1 is the first). */
export function armFault(name: string, nth: number, act: () => void): void {
  armed = { name, left: nth, act };
}

/** Marks a place between two steps at which a process may die. */
export function faultPoint(name: string): void {
  if (armed?.name !== name) return;
  armed.left -= 1;
  if (armed.left === 0) armed.act();
}
