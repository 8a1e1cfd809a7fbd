import pytest
import torch

from calibration.sampling import augmentation_for, crop_flip, normalised_black, resized_crops, with_views


def test_a_black_pixel_normalised() -> None:
    assert normalised_black([0.5, 0.2], [0.25, 0.1]) == [-2, -2]


def test_each_image_is_followed_by_its_own_views() -> None:
    images = torch.arange(1.0, 6)[:, None, None, None].expand(-1, 1, 8, 8)
    found = torch.cat(with_views(images.split(2), 3, [-1.0], False, seed=0))
    assert [int(image.max()) for image in found] == [number for number in range(1, 6) for _ in range(4)]
    assert torch.equal(found[::4], images)
    assert any((view == -1).any() for view in found)  # an edge came into sight


def test_batches_keep_their_size() -> None:
    batches = torch.rand(5, 3, 8, 8).split(2)
    assert [len(batch) for batch in with_views(batches, 2, [0.0], True, seed=0)] == [2] * 6 + [1] * 3


def test_views_do_not_depend_on_batches_or_processes() -> None:
    images = torch.rand(7, 1, 8, 8)
    whole = torch.cat(with_views([images], 2, [0.0], True, seed=3))
    parts = [*with_views(images[:3].split(2), 2, [0.0], True, 3), *with_views([images[3:]], 2, [0.0], True, 3, first=3)]
    assert torch.equal(torch.cat(parts), whole)
    assert not torch.equal(torch.cat(with_views([images], 2, [0.0], True, seed=4)), whole)


def test_a_view_is_a_window_into_the_padded_image() -> None:
    image = torch.arange(64.0).reshape(1, 1, 8, 8)
    padded = torch.nn.functional.pad(image, (1, 1, 1, 1), value=-5)[0, 0]
    windows = {padded[top : top + 8, left : left + 8] for top in range(3) for left in range(3)}
    for view in crop_flip(image.expand(20, -1, -1, -1), [-5.0], False, torch.Generator().manual_seed(0)):
        assert any(torch.equal(view[0], window) for window in windows)


def test_a_view_of_a_photo_is_a_resized_window() -> None:
    """On two ramps the slopes show how large a window was and whether it was mirrored, the values where it lay."""
    rows, columns = torch.meshgrid(torch.arange(80.0), torch.arange(120.0), indexing="ij")
    image = torch.stack([rows, columns])
    views = resized_crops(image.expand(40, -1, -1, -1), torch.Generator().manual_seed(0))
    down, right = views[:, 0, 20:60, 60].diff(dim=1), views[:, 1, 40, 20:100].diff(dim=1)
    assert (down.std(dim=1) < 1e-3).all()
    assert (right.std(dim=1) < 1e-3).all()
    height, width = down.mean(dim=1), right.mean(dim=1)  # of the window, as shares of the image's
    area, ratio = height * width.abs(), height / width.abs()
    assert area.min() > 0.23
    assert area.max() <= 1.01
    assert area.std() > 0.1
    assert ratio.min() > 0.75
    assert ratio.max() < 1.35
    assert 10 < (width < 0).sum() < 30
    assert views.amin() >= 0
    assert (views.amax(dim=(0, 2, 3)) <= torch.tensor([79.0, 119.0])).all()


def test_only_photos_that_may_be_mirrored_are_resized() -> None:
    images = torch.rand(2, 3, 64, 64)
    cut = torch.cat(with_views([images], 3, [0.0] * 3, True, seed=0))
    assert (cut.amin(dim=(1, 2, 3)) > 0).all()  # no black edge
    shifted = torch.cat(with_views([images], 3, [0.0] * 3, False, seed=0))
    assert (shifted[1:4] == 0).any()


@pytest.mark.parametrize(
    ("spec", "kind"), [("digits", "crop"), ("cifar10", "crop-flip"), ("imagefolder:x", "crop-flip"), ("npz:x", "none")]
)
def test_the_augmentation_suits_the_data(spec: str, kind: str) -> None:
    assert augmentation_for(spec) == kind
