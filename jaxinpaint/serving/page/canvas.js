// The picture, the hole painted on it, and how both are shown.

const STRIP = 256; // rows of a mask that are read at once
const MARK = '#ff1f6b';

export class Stage {
  // changed() is called when the hole has changed, moved() when the size or the view has.
  constructor(canvas, changed, moved) {
    Object.assign(this, {canvas, changed, moved});
    this.context = canvas.getContext('2d');
    this.tool = 'brush';
    this.size = 40; // of the brush, in pixels of the picture
    this.before = 0.5; // share of the picture that is shown as it was, beside a result
    this.image = this.result = this.mask = null;
    this.steps = [];
    this.undone = [];
    this.view = {scale: 1, x: 0, y: 0};
    this.pointers = new Map();
    this.cursor = null; // of the keyboard, or where the pointer is
    this.current = null; // a step that is being drawn
    new ResizeObserver(() => this.resize()).observe(canvas);
    this.listen();
  }

  open(image) {
    this.image = image;
    this.result = null;
    this.mask = document.createElement('canvas');
    [this.mask.width, this.mask.height] = [image.width, image.height];
    this.paper = this.mask.getContext('2d');
    this.steps = [];
    this.undone = [];
    this.current = null;
    this.cursor = [image.width / 2, image.height / 2];
    this.resize(true);
    this.changed();
  }

  show(result) {
    this.result = result;
    this.draw();
  }

  // The view.

  resize(fit = false) {
    const {canvas} = this;
    const [width, height] = [canvas.clientWidth, canvas.clientHeight];
    const ratio = window.devicePixelRatio || 1;
    const first = fit || this.fitted;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    if (this.image && first) this.fit();
    this.draw();
  }

  fit() {
    const [width, height] = [this.canvas.clientWidth, this.canvas.clientHeight];
    const scale = Math.min(width / this.image.width, height / this.image.height, 8);
    this.view = {
      scale,
      x: (width - scale * this.image.width) / 2,
      y: (height - scale * this.image.height) / 2,
    };
    this.fitted = true;
    this.draw();
    this.moved();
  }

  zoom(factor, at = null) {
    if (!this.image) return;
    const [x, y] = at || [this.canvas.clientWidth / 2, this.canvas.clientHeight / 2];
    const scale = Math.min(32, Math.max(0.02, this.view.scale * factor));
    const k = scale / this.view.scale;
    this.view = {scale, x: x - k * (x - this.view.x), y: y - k * (y - this.view.y)};
    this.fitted = false;
    this.draw();
    this.moved();
  }

  pan(x, y) {
    this.view.x += x;
    this.view.y += y;
    this.fitted = false;
    this.draw();
  }

  toImage([x, y]) {
    return [(x - this.view.x) / this.view.scale, (y - this.view.y) / this.view.scale];
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const {canvas, context: c, image, view} = this;
    const ratio = window.devicePixelRatio || 1;
    c.setTransform(1, 0, 0, 1, 0, 0);
    c.clearRect(0, 0, canvas.width, canvas.height);
    if (!image) return;
    c.setTransform(ratio * view.scale, 0, 0, ratio * view.scale, ratio * view.x, ratio * view.y);
    c.imageSmoothingEnabled = view.scale < 3;
    c.imageSmoothingQuality = 'high';
    c.drawImage(image, 0, 0);
    if (this.result) {
      const x = this.before * image.width;
      c.save();
      c.beginPath();
      c.rect(x, 0, image.width - x, image.height);
      c.clip();
      c.drawImage(this.result, 0, 0, image.width, image.height);
      c.restore();
      if (this.before > 0 && this.before < 1) this.line([[x, 0], [x, image.height]]);
      return;
    }
    c.globalAlpha = 0.55;
    c.drawImage(this.mask, 0, 0);
    c.globalAlpha = 1;
    const step = this.current;
    if (step && step.kind === 'rectangle' && step.to) {
      const [[a, b], [d, e]] = [step.from, step.to];
      this.line([[a, b], [d, b], [d, e], [a, e], [a, b]]);
    } else if (step && step.kind === 'lasso') {
      this.line([...step.points, ...(this.cursor ? [this.cursor] : [])]);
    }
    if (this.cursor && this.tool !== 'move') this.drawCursor();
  }

  drawCursor() {
    const [x, y] = this.cursor;
    const round = this.tool === 'brush' || this.tool === 'erase';
    const r = round ? this.size / 2 : 6 / this.view.scale;
    const points = [];
    if (round) {
      for (let i = 0; i <= 48; i++) {
        const angle = (i / 24) * Math.PI;
        points.push([x + r * Math.cos(angle), y + r * Math.sin(angle)]);
      }
      this.line(points);
    } else {
      this.line([[x - r, y], [x + r, y]]);
      this.line([[x, y - r], [x, y + r]]);
    }
  }

  // White on black, so that it is seen on everything.
  line(points) {
    const {context: c, view} = this;
    c.beginPath();
    points.forEach(([x, y], i) => (i ? c.lineTo(x, y) : c.moveTo(x, y)));
    for (const [colour, width] of [['#000', 3.5], ['#fff', 1.5]]) {
      c.strokeStyle = colour;
      c.lineWidth = width / view.scale;
      c.stroke();
    }
  }

  // Steps: what was painted. Undoing draws all of them again but the last.

  add(step) {
    this.steps.push(step);
    this.undone = [];
    this.apply(step);
    this.after();
  }

  after() {
    this.draw();
    this.changed();
  }

  undo() {
    if (!this.steps.length) return;
    this.undone.push(this.steps.pop());
    this.paper.clearRect(0, 0, this.mask.width, this.mask.height);
    this.steps.forEach((step) => this.apply(step));
    this.after();
  }

  redo() {
    if (!this.undone.length) return;
    const step = this.undone.pop();
    this.steps.push(step);
    this.apply(step);
    this.after();
  }

  apply(step) {
    const p = this.paper;
    const {width, height} = this.mask;
    p.globalCompositeOperation = step.erase ? 'destination-out' : 'source-over';
    p.fillStyle = p.strokeStyle = MARK;
    p.lineCap = p.lineJoin = 'round';
    if (step.kind === 'stroke') {
      p.lineWidth = step.size;
      p.beginPath();
      const [first, ...others] = step.points;
      p.moveTo(...first);
      // A stroke of one point has to be seen, too.
      (others.length ? others : [[first[0] + 0.01, first[1]]]).forEach((q) => p.lineTo(...q));
      p.stroke();
    } else if (step.kind === 'rectangle') {
      const [[a, b], [d, e]] = [step.from, step.to];
      p.fillRect(Math.min(a, d), Math.min(b, e), Math.abs(d - a), Math.abs(e - b));
    } else if (step.kind === 'lasso') {
      p.beginPath();
      step.points.forEach((q, i) => (i ? p.lineTo(...q) : p.moveTo(...q)));
      p.closePath();
      p.fill();
    } else if (step.kind === 'mask') {
      p.drawImage(step.mask, 0, 0);
    } else if (step.kind === 'clear') {
      p.clearRect(0, 0, width, height);
    } else if (step.kind === 'invert') {
      p.globalCompositeOperation = 'xor';
      p.fillRect(0, 0, width, height);
    }
    p.globalCompositeOperation = 'source-over';
  }

  // About how much of the picture is hole, in [0, 1].
  share() {
    if (!this.mask) return 0;
    const small = document.createElement('canvas');
    small.width = small.height = 64;
    const c = small.getContext('2d');
    c.drawImage(this.mask, 0, 0, 64, 64);
    const {data} = c.getImageData(0, 0, 64, 64);
    let sum = 0;
    for (let i = 3; i < data.length; i += 4) sum += data[i];
    return sum / (255 * 64 * 64);
  }

  // {mask: a canvas in black and white, hole: pixels of it that are white}.
  exportMask(empty = false) {
    const {width, height} = this.mask;
    const mask = document.createElement('canvas');
    [mask.width, mask.height] = [width, height];
    const out = mask.getContext('2d', {willReadFrequently: true});
    out.drawImage(this.mask, 0, 0);
    let hole = 0;
    for (let y = 0; y < height; y += STRIP) {
      const rows = Math.min(STRIP, height - y);
      const strip = out.getImageData(0, y, width, rows);
      const {data} = strip;
      for (let i = 0; i < data.length; i += 4) {
        const white = !empty && data[i + 3] > 127;
        hole += white;
        data[i] = data[i + 1] = data[i + 2] = white ? 255 : 0;
        data[i + 3] = 255;
      }
      out.putImageData(strip, 0, y);
    }
    return {mask, hole};
  }

  // Adds the hole of a picture in black and white, of the picture's shape.
  readMask(image) {
    const {width, height} = this.mask;
    const mask = document.createElement('canvas');
    [mask.width, mask.height] = [width, height];
    const c = mask.getContext('2d', {willReadFrequently: true});
    c.imageSmoothingEnabled = false;
    c.drawImage(image, 0, 0, width, height);
    const strips = (use) => {
      for (let y = 0; y < height; y += STRIP) {
        const strip = c.getImageData(0, y, width, Math.min(STRIP, height - y));
        if (use(strip.data) !== false) c.putImageData(strip, 0, y);
      }
    };
    // Two values, one of them 0: the other one is the hole, whatever it is. As the server reads it.
    const values = new Set();
    strips((data) => {
      for (let i = 0; i < data.length && values.size < 3; i += 4) values.add(data[i]);
      return false;
    });
    const least = values.size === 2 && values.has(0) ? 0 : 127;
    const [r, g, b] = [1, 3, 5].map((i) => parseInt(MARK.slice(i, i + 2), 16));
    strips((data) => {
      for (let i = 0; i < data.length; i += 4) {
        const grey = 0.299 * data[i] + 0.587 * data[i + 1] + 0.114 * data[i + 2];
        [data[i], data[i + 1], data[i + 2], data[i + 3]] = [r, g, b, grey > least ? 255 : 0];
      }
    });
    this.add({kind: 'mask', mask});
  }

  // Pointers: mouse, pen, fingers.

  listen() {
    const {canvas} = this;
    const at = (event) => {
      const box = canvas.getBoundingClientRect();
      return [event.clientX - box.left, event.clientY - box.top];
    };
    canvas.addEventListener('pointerdown', (event) => {
      if (!this.image) return;
      canvas.setPointerCapture(event.pointerId);
      this.pointers.set(event.pointerId, at(event));
      if (this.pointers.size === 2) {
        this.stopStep();
        return;
      }
      if (this.pointers.size > 2) return;
      const pan = this.tool === 'move' || event.button === 1 || this.result;
      this.panning = pan && !this.result;
      this.sliding = Boolean(this.result);
      if (this.sliding) this.slide(at(event));
      if (!pan && event.button === 0) this.begin(this.toImage(at(event)));
      event.preventDefault();
      canvas.focus({preventScroll: true});
    });
    canvas.addEventListener('pointermove', (event) => {
      if (!this.image) return;
      const here = at(event);
      const old = this.pointers.get(event.pointerId);
      if (old && this.pointers.size === 2) {
        const other = [...this.pointers].find(([id]) => id !== event.pointerId)[1];
        const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) || 1;
        const middle = [(here[0] + other[0]) / 2, (here[1] + other[1]) / 2];
        this.pan((here[0] - old[0]) / 2, (here[1] - old[1]) / 2);
        this.zoom(distance(here, other) / distance(old, other), middle);
      } else if (old && this.sliding) {
        this.slide(here);
      } else if (old && this.panning) {
        this.pan(here[0] - old[0], here[1] - old[1]);
      }
      if (old) this.pointers.set(event.pointerId, here);
      this.cursor = this.toImage(here);
      if (old && this.pointers.size === 1) this.extend(this.cursor);
      this.draw();
    });
    const up = (event) => {
      if (!this.pointers.delete(event.pointerId)) return;
      if (!this.pointers.size) {
        if (event.type === 'pointercancel') this.stopStep();
        else this.finish();
        this.panning = this.sliding = false;
      }
    };
    canvas.addEventListener('pointerup', up);
    canvas.addEventListener('pointercancel', up);
    canvas.addEventListener('pointerleave', () => {
      if (document.activeElement !== canvas) this.cursor = null;
      this.draw();
    });
    canvas.addEventListener(
      'wheel',
      (event) => {
        if (!this.image) return;
        event.preventDefault();
        const away = event.deltaY > 0;
        const brush = this.tool === 'brush' || this.tool === 'erase';
        if (brush && !event.ctrlKey && !event.metaKey && !this.result) {
          this.setSize(this.size * (away ? 1 / 1.1 : 1.1));
        } else {
          this.zoom(away ? 1 / 1.15 : 1.15, at(event));
        }
      },
      {passive: false},
    );
  }

  slide(here) {
    const [x] = this.toImage(here);
    this.before = Math.min(1, Math.max(0, x / this.image.width));
    this.draw();
    this.moved();
  }

  setSize(size) {
    this.size = Math.min(2000, Math.max(1, size));
    this.draw();
    this.moved();
  }

  begin(point) {
    const erase = this.tool === 'erase';
    if (this.tool === 'rectangle') this.current = {kind: 'rectangle', from: point, to: point};
    else if (this.tool === 'lasso') this.current = {kind: 'lasso', points: [point]};
    else this.current = {kind: 'stroke', erase, size: this.size, points: [point]};
    this.cursor = point;
    if (this.current.kind === 'stroke') this.apply(this.current);
    this.draw();
  }

  extend(point) {
    const step = this.current;
    if (!step) return;
    if (step.kind === 'rectangle') step.to = point;
    else step.points.push(point);
    if (step.kind === 'stroke') this.apply({...step, points: step.points.slice(-2)});
    this.draw();
  }

  finish() {
    const step = this.current;
    this.current = null;
    if (!step) return;
    if (step.kind !== 'lasso' || step.points.length > 2) this.add(step);
    else this.draw();
  }

  // Drops what is being drawn.
  stopStep() {
    if (!this.current) return;
    this.current = null;
    this.paper.clearRect(0, 0, this.mask.width, this.mask.height);
    this.steps.forEach((step) => this.apply(step));
    this.draw();
  }

  // Keys on the picture; returns whether the key meant something.
  key(event) {
    if (!this.image || this.result) return false;
    const arrows = {ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1]};
    const way = arrows[event.key];
    if (way) {
      const length = Math.max(1, this.size / 3);
      const old = this.cursor || [this.image.width / 2, this.image.height / 2];
      const fit = (x, most) => Math.min(most, Math.max(0, x));
      this.cursor = [
        fit(old[0] + way[0] * length, this.image.width),
        fit(old[1] + way[1] * length, this.image.height),
      ];
      const stroke = this.tool === 'brush' || this.tool === 'erase';
      if (event.shiftKey && stroke) {
        this.add({
          kind: 'stroke', erase: this.tool === 'erase', size: this.size,
          points: [old, this.cursor],
        });
      }
      if (this.current && this.current.kind === 'rectangle') this.current.to = this.cursor;
      this.draw();
      return true;
    }
    const at = this.cursor || [this.image.width / 2, this.image.height / 2];
    if (event.key === ' ') {
      if (this.tool === 'move') return false;
      if (!this.current) {
        this.begin(at);
        if (this.current.kind === 'stroke') this.finish();
      } else if (this.current.kind === 'rectangle') {
        this.extend(at);
        this.finish();
      } else {
        this.extend(at);
      }
      return true;
    }
    if (event.key === 'Enter' && this.current) {
      this.finish();
      return true;
    }
    if (event.key === 'Escape' && this.current) {
      this.stopStep();
      return true;
    }
    return false;
  }
}
