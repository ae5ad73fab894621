// Where the picture was clicked, in its own pixels. Gradio's select event can't give that of an enlarged picture.
document.addEventListener('click', event => {
  const image = event.target.closest('#picture img');
  if (!image) return;
  const box = image.getBoundingClientRect();
  const zoom = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight);
  const x = (event.clientX - box.left - (box.width - image.naturalWidth * zoom) / 2) / zoom;
  const y = (event.clientY - box.top - (box.height - image.naturalHeight * zoom) / 2) / zoom;
  trigger('click', {x, y});
});
