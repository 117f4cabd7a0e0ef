const at = id => document.getElementById(id);

// The slider, the difference and the lens. data: images (before, after, more), left and right (names),
// width, height (pixels of the comparison), panels [{name, image}] or [{name, of: [image, image]}],
// spot [x, y], shown (a line).
function showViewer(data) {
  const box = at("compare"), split = at("split"), zoom = at("zoom"), spot = at("spot");
  for (const name of ["before", "after"]) at(name).src = data.images[name];
  at("before").alt = data.left; at("after").alt = data.right;
  at("left").textContent = "left: " + data.left; at("right").textContent = "right: " + data.right;
  at("shown").textContent = data.shown;
  const showSize = () => {  // both as wide as the larger one is
    const wide = Math.max(at("before").naturalWidth, at("after").naturalWidth);
    box.style.width = `min(100%, ${wide + 2}px)`;  // and the border
  };
  for (const name of ["before", "after"]) at(name).addEventListener("load", showSize);
  const showSplit = () => box.style.setProperty("--at", split.value + "%");
  split.addEventListener("input", showSplit);
  at("difference").addEventListener("change", event => {
    box.classList.toggle("differs", event.target.checked);
    split.disabled = event.target.checked;
  });

  const pictures = {};
  for (const [name, address] of Object.entries(data.images)) {
    pictures[name] = new Image();
    pictures[name].addEventListener("load", () => draw());
    pictures[name].src = address;
  }
  const panels = data.panels.map(panel => {
    const figure = document.createElement("figure"), canvas = document.createElement("canvas");
    const caption = document.createElement("figcaption");
    caption.textContent = panel.name;
    figure.append(canvas, caption);
    at("lens").append(figure);
    return {...panel, canvas};
  });
  at("lens").style.maxWidth = 22 * panels.length + "rem";
  let [x, y] = data.spot;

  // The first pixel that a lens of so many shows: within the picture, or the picture in its middle.
  const start = (center, seen, whole) => seen >= whole ? (whole - seen) / 2 : Math.min(whole - seen, Math.max(0, center - seen / 2));
  function paint(context, name, side, mode) {
    const picture = pictures[name], fx = picture.naturalWidth / data.width, fy = picture.naturalHeight / data.height;
    const seen = side / zoom.value, left = start(x, seen, data.width), top = start(y, seen, data.height);
    context.globalCompositeOperation = mode;
    context.drawImage(picture, left * fx, top * fy, seen * fx, seen * fy, 0, 0, side, side);
  }
  function draw() {
    for (const {canvas, image, of} of panels) {
      const side = Math.max(1, Math.round(canvas.clientWidth)), context = canvas.getContext("2d");
      canvas.width = canvas.height = side;
      const names = of || [image];
      if (!names.every(name => pictures[name].naturalWidth)) continue;
      context.imageSmoothingEnabled = Boolean(of);
      paint(context, names[0], side, "source-over");
      if (of) {
        paint(context, names[1], side, "difference");
        context.globalCompositeOperation = "lighter";
        for (let i = 0; i < 2; i++) context.drawImage(canvas, 0, 0);
      }
    }
    const width = panels.length ? panels[0].canvas.clientWidth / zoom.value : 0;
    spot.style.left = 100 * start(x, width, data.width) / data.width + "%";
    spot.style.top = 100 * start(y, width, data.height) / data.height + "%";
    spot.style.width = 100 * width / data.width + "%";
    spot.style.height = 100 * width / data.height + "%";
  }
  function move(toX, toY) {
    x = Math.min(data.width, Math.max(0, toX));
    y = Math.min(data.height, Math.max(0, toY));
    draw();
  }
  const placed = event => {
    const seen = box.getBoundingClientRect();
    return [(event.clientX - seen.left) / seen.width, (event.clientY - seen.top) / seen.height];
  };
  box.addEventListener("pointermove", event => {
    const [across, down] = placed(event);
    if (event.pointerType === "mouse" && !event.buttons) { move(across * data.width, down * data.height); return; }
    split.value = 100 * across;
    showSplit();
  });
  box.addEventListener("click", event => {
    const [across, down] = placed(event);
    move(across * data.width, down * data.height);
  });
  const ways = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
  at("lens").addEventListener("keydown", event => {
    const way = ways[event.key];
    if (!way) return;
    event.preventDefault();
    const far = (event.shiftKey ? 128 : 16) / zoom.value;
    move(x + far * way[0], y + far * way[1]);
  });
  zoom.addEventListener("change", draw);
  addEventListener("resize", draw);
  showSplit();
  draw();
}
