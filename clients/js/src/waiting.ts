/** Waiting with an end to it. */

/** What `work` resolves to, or a rejection with `late()` after `ms` milliseconds. Throws what `work` throws. */
export function within<T>(ms: number, late: () => Error, work: () => T | Promise<T>): Promise<T> {
  return new Promise<T>((resolve, reject) => {
    const timer = setTimeout(() => reject(late()), ms);
    Promise.resolve()
      .then(work)
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}

/** A wait that can be cut short. */
export class Pause {
  #end: (() => void) | null = null;

  /** Resolves after `ms` milliseconds, or when `end` is called. One at a time. */
  for(ms: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => this.end(), ms);
      this.#end = () => {
        clearTimeout(timer);
        this.#end = null;
        resolve();
      };
    });
  }

  /** Nothing happens when nobody waits. */
  end(): void {
    this.#end?.();
  }
}
