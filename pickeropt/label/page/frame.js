// Drawing at most once a frame.

/** A function that has `draw` called at the next frame, once, however often it is called before. */
export function oncePerFrame(draw) {
  let planned = false;
  return () => {
    if (planned) return;
    planned = true;
    requestAnimationFrame(() => {
      planned = false;
      draw();
    });
  };
}
