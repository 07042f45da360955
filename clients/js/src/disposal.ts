/// <reference lib="esnext.disposable" preserve="true" />

/** `Symbol.asyncDispose`, also where there is none yet: compilers and polyfills put the same symbol in its place. */
export const asyncDispose: typeof Symbol.asyncDispose =
  (Symbol as { readonly asyncDispose?: typeof Symbol.asyncDispose }).asyncDispose ??
  (Symbol.for("Symbol.asyncDispose") as typeof Symbol.asyncDispose);
